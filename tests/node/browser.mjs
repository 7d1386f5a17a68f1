// SPDX-License-Identifier: AGPL-3.0-or-later
// Chromium opens a page of a site behind the suite, plain and with TLS, WebSockets compressed and not. By EventSource, fetch,
// long-poll and two kinds of WebSocket at once, it gets all messages, in order and once, although parts of the suite die.
// Arguments: the directory of the programs, the browser.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash, X509Certificate } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { Site } from './news_site.mjs';
import { endAfter, freePort, Suite, until } from './suite.mjs';

const [programs, executablePath] = process.argv.slice(2);
endAfter(150);

/** A certificate for localhost in a suite's directory; gives the hash by which the browser can be told to trust its key. */
function certify(directory, port) {
    const certs = join(directory, 'runner', 'certs');
    mkdirSync(certs, { recursive: true });
    const [key, crt] = ['key', 'crt'].map((end) => join(certs, `default_${port}.${end}`));
    const pair = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key, '-out', crt];
    const site = ['-days', '2', '-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'];
    execFileSync('openssl', ['req', '-x509', ...pair, ...site], { stdio: 'ignore' });
    const spki = new X509Certificate(readFileSync(crt)).publicKey.export({ type: 'spki', format: 'der' });
    return createHash('sha256').update(spki).digest('base64');
}

async function start(compressed) {
    const [publish, tls] = [await freePort(), await freePort()];
    const site = await Site.start(publish);
    let trusted;
    const suite = await Suite.start(programs, {
        routes: `*,path_beg=/over-http 127.0.0.1:${site.port},over_http\n* 127.0.0.1:${site.port}`,
        publish,
        settings: `[runner]\nhttps_ports=127.0.0.1:${tls}\nallow_compression=${compressed}`,
        prepare: (directory) => (trusted = certify(directory, tls)),
    });
    return { site, suite, trusted, addresses: { plain: `http://localhost:${suite.port}`, TLS: `https://localhost:${tls}` } };
}

const received = (page) => page.evaluate(() => news);

async function caughtUp(page, site) {
    await until(`the page has all ${site.last} messages`, async () => {
        const lists = Object.values(await received(page));
        return lists.every((list) => list.length >= site.last);
    });
    const all = Array.from({ length: site.last }, (_, index) => index + 1);
    for (const [way, list] of Object.entries(await received(page))) assert.deepEqual(list, all, way);
}

async function visit(browser, url, compressed, { site, suite }) {
    const page = await browser.newPage();
    page.on('pageerror', (error) => assert.fail(error));
    await page.goto(url);
    if (site.last === 0) await site.publish();
    await caughtUp(page, site);

    // Streams of a new channel are asked for again once. Then nobody has to ask the backend for what comes.
    await until('20 messages come by push alone', async () => {
        const asked = site.asked;
        for (let count = 0; count < 20; count++) await site.publish();
        await caughtUp(page, site);
        return site.asked === asked;
    });

    for (const way of ['overHttp', 'through']) {
        const extensions = await page.evaluate((way) => sockets[way].extensions, way);
        assert.equal(extensions.includes('permessage-deflate'), compressed, `${way}: ${extensions}`);
        for (const text of ['ünïcode \u{1f600}', 'much of the same '.repeat(8000)]) {
            assert.equal(await page.evaluate(([way, text]) => echo(way, text), [way, text]), `echo ${text}`);
        }
    }

    for (const part of ['pushpin-handler', 'pushpin-frontend', 'pushpin-proxy', 'pushpin-handler']) {
        await suite.killChild(part);
        for (let count = 0; count < 5; count++) await site.publish();
        await caughtUp(page, site);
    }
    await page.close();
}

for (const compressed of [false, true]) {
    const world = await start(compressed);
    const browser = await chromium.launch({
        executablePath,
        args: [
            '--headless',
            '--no-sandbox',
            '--disable-gpu',
            '--disable-quic',
            '--no-first-run',
            '--no-proxy-server',
            '--disable-background-networking',
            '--disable-component-update',
            '--disable-sync',
            `--ignore-certificate-errors-spki-list=${world.trusted}`,
        ],
    });
    for (const [how, url] of Object.entries(world.addresses)) {
        await visit(browser, url, compressed, world);
        const sockets = compressed ? 'compressed WebSockets' : 'WebSockets';
        console.log(`${how}: EventSource, fetch, long-poll and ${sockets}, with parts that die: passed`);
    }
    await browser.close();
    await world.suite.stop();
}
process.exit(0);
