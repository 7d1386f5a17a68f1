// SPDX-License-Identifier: AGPL-3.0-or-later
// The cases of the Autobahn test suite, by kosoku, for WebSockets through the suite in front of an echo.
// Arguments: the directory of the programs, kosoku, and what it is to run, such as 7.1.5 or '13.*', if not what is run always.
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { echo, echoOverHttp } from './echo.mjs';
import { endAfter, freePort, Suite } from './suite.mjs';

const [programs, kosoku, ...asked] = process.argv.slice(2);
// Frames, pings, fragments, UTF-8, closing.
const RULES = ['1.*', '2.*', '3.*', '4.*', '5.*', '6.*', '7.*', '10.*'];
// Messages of up to 16 MB, more than is passed on by WebSocket-over-HTTP.
const LARGE = ['9.*'];
// The first of the cases with compression, because all of them take minutes. A backend is never asked for it.
const COMPRESSED = ['12.1.*'];
endAfter(3600);
const reports = mkdtempSync(join(tmpdir(), 'autobahn-'));
const run = promisify(execFile);

async function check(how, port, cases) {
    const include = (asked.length ? asked : cases).flatMap((name) => ['-i', name]);
    const options = ['-p', '4', ...include, '-o', reports];
    const start = Date.now();
    const result = await run(kosoku, [...options, `127.0.0.1:${port}`], { maxBuffer: 1 << 24 }).catch((failure) => failure);
    const passed = /^[1-9]\d* cases passed$/m.exec(result.stdout);
    if (!passed) process.exitCode = 1;
    console.log(`${how}: ${passed ?? result.stderr ?? result} in ${Math.round((Date.now() - start) / 1000)} s`);
}

/** A suite in front of a target, which compresses if the client does. */
async function suite(target) {
    const publish = await freePort();
    return Suite.start(programs, { routes: `* 127.0.0.1:${target}`, publish, settings: '[runner]\nallow_compression=true' });
}

const sockets = await echo();
await check('the echo alone', sockets, [...RULES, ...LARGE]);
const passing = await suite(sockets);
await check('pass-through', passing.port, [...RULES, ...LARGE, ...COMPRESSED]);
const over = await suite(`${await echoOverHttp()},over_http`);
await check('WebSocket-over-HTTP', over.port, RULES);
await passing.stop();
await over.stop();
rmSync(reports, { recursive: true });
process.exit();
