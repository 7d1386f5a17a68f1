// SPDX-License-Identifier: AGPL-3.0-or-later
// The suite, started by its runner in a directory and on ports of its own.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

export const PATIENCE = 30_000;

const given = new Set();

/** One that nothing listens on. It is none of those from which the kernel takes one for each connection, so that it stays free. */
export async function freePort() {
    for (;;) {
        const port = randomInt(20_000, 32_000);
        if (given.has(port)) continue;
        const server = createServer().listen(port, '127.0.0.1');
        const isFree = await new Promise((go) => server.once('listening', () => go(true)).once('error', () => go(false)));
        if (!isFree) continue;
        server.close();
        await once(server, 'close');
        given.add(port);
        return port;
    }
}

export async function until(what, condition) {
    const deadline = Date.now() + PATIENCE;
    for (;;) {
        const result = await condition();
        if (result) return result;
        assert(Date.now() < deadline, `waited in vain until ${what}`);
        await new Promise((go) => setTimeout(go, 20));
    }
}

/** Has the program end with an error, its suites stopped, when something fails or it runs for longer than so many seconds. */
export function endAfter(seconds) {
    const fail = (error) => {
        console.error(error);
        for (const suite of Suite.running) {
            console.error(suite.logs());
            suite.runner.kill();
        }
        process.exit(1);
    };
    setTimeout(() => fail('it takes too long'), seconds * 1000).unref();
    process.on('unhandledRejection', fail);
    process.on('uncaughtException', fail);
}

export class Suite {
    static running = new Set();

    /** `settings` are further lines of pushpin.conf, with section; `prepare` puts files beside it. */
    static async start(programs, { routes, publish, settings = '', prepare = () => {} }) {
        const suite = new Suite();
        suite.directory = mkdtempSync(join(tmpdir(), 'suite-'));
        suite.port = await freePort();
        suite.publish = publish;
        const path = suite.directory;
        prepare(path);
        writeFileSync(join(path, 'routes'), `${routes}\n`);
        writeFileSync(
            join(path, 'pushpin.conf'),
            `[global]
rundir=${path}/run
[runner]
http_port=127.0.0.1:${suite.port}
logdir=${path}/log
[proxy]
routesfile=routes
sig_key=changeme
[handler]
push_in_http_addr=127.0.0.1
push_in_http_port=${publish}
push_in_spec=ipc://${path}/pull
push_in_sub_specs=ipc://${path}/sub
command_spec=ipc://${path}/command
${settings}
`,
        );
        const command = join(resolve(programs), 'pushpin-runner');
        suite.runner = spawn(command, [`--config=${join(path, 'pushpin.conf')}`], { stdio: 'inherit' });
        Suite.running.add(suite);
        await until('the suite serves', () => fetch(`http://127.0.0.1:${suite.port}/none`).then(() => true, () => false));
        return suite;
    }

    /** The process id of a part, a child of the runner. */
    child(name) {
        const runner = this.runner.pid;
        const children = readFileSync(`/proc/${runner}/task/${runner}/children`, 'utf8').split(' ').filter(Boolean);
        return children.find((pid) => {
            try {
                return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')[0].endsWith(name);
            } catch {
                return false; // it has just ended
            }
        });
    }

    /** Kills a part, and waits until the runner has started another. */
    async killChild(name) {
        const old = this.child(name);
        process.kill(Number(old), 'SIGKILL');
        await until(`there is another ${name}`, () => ![undefined, old].includes(this.child(name)));
    }

    logs() {
        const log = join(this.directory, 'log');
        return readdirSync(log).map((file) => readFileSync(join(log, file), 'utf8').slice(-4000)).join('\n');
    }

    async stop() {
        this.runner.kill();
        await once(this.runner, 'exit');
        Suite.running.delete(this);
        rmSync(this.directory, { recursive: true });
    }
}
