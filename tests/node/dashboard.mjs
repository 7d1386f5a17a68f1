// SPDX-License-Identifier: AGPL-3.0-or-later
// Chromium opens the dashboard of a suite: what it shows is right and live, what it tries works, nothing that others have named
// becomes markup, and at 400 px nothing sticks out.
// Arguments: the directory of the programs, the browser, and a directory for pictures if they are wanted.
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { endAfter, freePort, Suite, until } from './suite.mjs';

const [programs, executablePath, pictures] = process.argv.slice(2);
endAfter(150);

const HOSTILE = `<img src=x onerror="document.title='taken'"><script>document.title='taken'</script>\u202e&lt"'`;
const TOKEN = 'a-token';

const publish = await freePort();
const dashboard = await freePort();
const suite = await Suite.start(programs, {
    routes: '* test',
    publish,
    settings: `control_token=${TOKEN}\n[runner]\ndashboard_port=${dashboard}`,
});
const url = `http://127.0.0.1:${dashboard}/`;

/** Holds a stream of a channel until the test ends; gives a promise of its head. */
function hold(channel) {
    return new Promise((go, fail) => {
        const path = `/stream?channel=${encodeURIComponent(channel)}`;
        request({ port: suite.port, host: '127.0.0.1', path }, (response) => go(response.resume())).on('error', fail).end();
    });
}

async function post(channel, content) {
    const formats = { 'http-stream': { content } };
    const response = await fetch(`http://127.0.0.1:${publish}/publish/`, {
        method: 'POST',
        headers: { Authorization: `Bearer ${TOKEN}` },
        body: JSON.stringify({ items: [{ channel, formats }] }),
    });
    assert.equal(response.status, 200);
}

const browser = await chromium.launch({
    executablePath,
    args: ['--headless', '--no-sandbox', '--disable-gpu', '--no-first-run', '--no-proxy-server', '--disable-background-networking',
        '--disable-component-update', '--disable-sync'],
});

async function open(options) {
    const context = await browser.newContext(options);
    const page = await context.newPage();
    page.on('pageerror', (error) => assert.fail(error));
    // Refused tokens and a policy that is broken are told here.
    page.on('console', (message) => {
        if (message.type() === 'error' && !/40[013]|ERR_/.test(message.text())) assert.fail(message.text());
    });
    page.on('request', (asked) => assert(asked.url().startsWith(url), `${asked.url()} is asked for`));
    await page.goto(url);
    return page;
}

async function admitted(page) {
    await page.getByLabel('Token of the control port').fill(TOKEN);
    await page.getByRole('button', { name: 'Open' }).click();
    await page.locator('#state[data-state=ready]').waitFor();
}

const channelNames = (page) => page.locator('#channels td.name').allTextContents();
const fits = (page) => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);

async function picture(page, name) {
    if (!pictures) return;
    mkdirSync(pictures, { recursive: true });
    await page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
}

// Channels of which one has a name that wants to be more than a name.
await hold(HOSTILE);
for (const [channel, count] of [['news', 5], ['prices/eur', 3], [`a${'-very'.repeat(30)}-long-name`, 2]]) {
    for (let number = 0; number < count; number++) await hold(channel);
}

// Without the token nothing is told.
for (const [path, method] of [['events', 'GET'], ['hold', 'POST'], ['publish', 'POST']]) {
    const headers = { 'Content-Type': 'application/json' };
    for (const wrong of [{}, { Authorization: 'Bearer wrong' }]) {
        const answer = await fetch(url + path, { method, headers: { ...headers, ...wrong }, body: method === 'POST' ? '{}' : undefined });
        assert.equal(answer.status, 401, path);
    }
    const foreign = { ...headers, Authorization: `Bearer ${TOKEN}`, 'Sec-Fetch-Site': 'cross-site' };
    const answer = await fetch(url + path, { method, headers: foreign, body: method === 'POST' ? '{}' : undefined });
    assert.equal(answer.status, 403, path);
}

const page = await open({ viewport: { width: 1200, height: 900 }, colorScheme: 'light' });
await page.getByLabel('Token of the control port').fill('wrong');
await page.getByRole('button', { name: 'Open' }).click();
await page.locator('#refused', { hasText: 'Unauthorized' }).waitFor();
await picture(page, 'token');
await admitted(page);

await until('the channels are shown', async () => (await channelNames(page)).length === 4);
assert.deepEqual((await channelNames(page)).slice(0, 2), ['news', 'prices/eur']);
assert((await channelNames(page)).includes(HOSTILE.replace('\u202e', '\\u{202e}')));
assert.equal(await page.title(), 'Pushpin');
assert.equal(await page.locator('main img, main script').count(), 0);

for (const name of ['frontend', 'proxy', 'handler', 'outbound']) {
    const row = page.locator('#processes tr', { has: page.getByText(name, { exact: true }) });
    await row.locator('td.state', { hasText: 'serving' }).waitFor();
    await row.locator('td', { hasText: 'MiB' }).waitFor();
}
const tile = (title) => page.locator('.tile', { has: page.locator('h3', { hasText: title }) }).locator('strong');
await until('the held clients are counted', async () => (await tile('Held').textContent()) === '11');
const publishing = setInterval(() => post('news', 'x\n'.repeat(100)), 100);
await until('rates are shown', async () => parseFloat(await tile('Published / s').textContent()) > 1);
await until('deliveries are counted', async () => parseFloat(await tile('Delivered / s').textContent()) > 5);

// What ends is seen, with the reason, and what follows too.
await suite.killChild('pushpin-handler');
await page.locator('td.name', { hasText: 'SIGKILL' }).waitFor();
await until('the successor is asked', async () => (await page.locator('#no-channels').textContent()) === 'Nobody is subscribed to any.');
clearInterval(publishing);
console.log('the suite is shown, live, and names are no markup: passed');

// Hold and publish.
await page.getByRole('link', { name: 'Try it' }).click();
await page.getByLabel('Path, as').fill('/stream?channel=test');
await page.getByRole('button', { name: 'Hold' }).click();
await page.locator('#bytes .received', { hasText: '[stream opened]' }).waitFor();
await page.locator('#bytes .sent', { hasText: 'GET /stream?channel=test HTTP/1.1' }).waitFor();
await page.getByLabel('Content').fill(`ünïcode ${HOSTILE}`);
await page.getByRole('button', { name: 'Publish' }).click();
await page.locator('#published', { hasText: 'streams 1' }).waitFor();
await page.locator('#bytes .received', { hasText: 'ünïcode <img' }).waitFor();
assert.equal(await page.locator('#bytes img').count(), 0);
await picture(page, 'try');
await page.getByLabel('hexadecimal').check();
await page.locator('#bytes .received', { hasText: 'c3 bc 6e c3 af' }).waitFor();
await page.getByRole('button', { name: 'Let go' }).click();
await page.locator('#bytes .end', { hasText: 'let go' }).waitFor();
await page.getByLabel('Path, as').fill('/a b');
await page.getByRole('button', { name: 'Hold' }).click();
await page.locator('#bytes .end', { hasText: 'visible ASCII' }).waitFor();
console.log('a held path gets what is published: passed');

// At both widths, light and dark.
for (const [channel, count] of [['news', 40], ['prices/eur', 21], [HOSTILE, 3], [`a${'-very'.repeat(30)}-long-name`, 2]]) {
    for (let number = 0; number < count; number++) await hold(channel);
}
const more = setInterval(() => post('news', 'x'.repeat(50 + 950 * Math.random())), 90);
for (const width of [400, 1200]) {
    for (const colorScheme of ['light', 'dark']) {
        const seen = await open({ viewport: { width, height: 900 }, colorScheme });
        await admitted(seen);
        await until('the channels are shown', async () => (await channelNames(seen)).length >= 4);
        if (pictures) await new Promise((go) => setTimeout(go, 12_000));
        assert(await fits(seen), `at ${width} px something sticks out of the suite`);
        await picture(seen, `suite-${width}-${colorScheme}`);
        await seen.getByRole('link', { name: 'Try it' }).click();
        await seen.getByRole('button', { name: 'Hold' }).click();
        await seen.locator('#bytes .received').first().waitFor();
        assert(await fits(seen), `at ${width} px something sticks out of the page to try`);
        await picture(seen, `try-${width}-${colorScheme}`);
        await seen.context().close();
    }
}
clearInterval(more);
console.log('nothing sticks out at 400 and 1200 px, light and dark: passed');

// While nobody looks, the handler is not asked.
await browser.close();
await suite.stop();
process.exit(0);
