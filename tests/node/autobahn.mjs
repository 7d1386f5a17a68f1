// The cases of the Autobahn test suite, by kosoku, for WebSockets through the suite in front of an echo.
// Arguments: the directory of the programs, kosoku, and what it is to run: groups such as 1, or cases such as 7.1.5.
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { echo, echoOverHttp } from './echo.mjs';
import { endAfter, freePort, Suite } from './suite.mjs';

const [programs, kosoku, ...cases] = process.argv.slice(2);
endAfter(3600);
const reports = mkdtempSync(join(tmpdir(), 'autobahn-'));
const run = promisify(execFile);

async function check(how, port) {
    const include = cases.flatMap((name) => ['-i', /^\d+$/.test(name) ? `${name}.*` : name]);
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
await check('the echo alone', sockets);
const passing = await suite(sockets);
await check('pass-through', passing.port);
const over = await suite(`${await echoOverHttp()},over_http`);
await check('WebSocket-over-HTTP', over.port);
await passing.stop();
await over.stop();
rmSync(reports, { recursive: true });
process.exit();
