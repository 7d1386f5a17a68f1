// SPDX-License-Identifier: AGPL-3.0-or-later
// Express with @fanoutio/serve-grip, the ws client and sockjs-client, unchanged, with the suite.
// Argument: the directory of the programs.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import SockJS from 'sockjs-client';
import WebSocket from 'ws';
import { serve } from './site.mjs';
import { endAfter, freePort, Suite, until } from './suite.mjs';

endAfter(120);

/** What arrives, in order. */
class Inbox {
    messages = [];
    async next() {
        await until('a message comes', () => this.messages.length > 0);
        return this.messages.shift();
    }
}

const publish = await freePort();
const site = serve(publish);
await once(site, 'listening');
const routes = `*,sockjs=/sock,sockjs_as_path=/chat 127.0.0.1:${site.address().port},over_http`;
const suite = await Suite.start(process.argv[2], { routes, publish });
const { port } = suite;
const url = `http://127.0.0.1:${port}`;

const tell = (text) => fetch(`${url}/news`, { method: 'POST', headers: { 'Content-Type': 'text/plain' }, body: text });

{
    const response = await fetch(`${url}/stream`);
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const read = async () => (await reader.read()).value;
    assert.equal(await read(), '[stream open]\n');
    assert.equal((await tell('first')).status, 200);
    assert.equal(await read(), 'first\n');
    await reader.cancel();
    console.log('stream: passed');
}
{
    const poll = fetch(`${url}/poll`).then((response) => response.text());
    const answer = await Promise.race([
        poll,
        until('the poll is answered', async () => {
            await tell('second');
            return Promise.race([poll, new Promise((go) => setTimeout(go, 100))]);
        }),
    ]);
    assert.equal(answer, 'second\n');
    console.log('long-poll: passed');
}

async function chat(open) {
    const inbox = new Inbox();
    const socket = await open((message) => inbox.messages.push(message));
    return { inbox, socket };
}
const plain = (onMessage) =>
    new Promise((go, refuse) => {
        const socket = new WebSocket(`ws://127.0.0.1:${port}/chat`);
        socket.on('message', (data) => onMessage(data.toString()));
        socket.on('open', () => go(socket));
        socket.on('error', refuse);
    });
const sockjs = (transport) => (onMessage) =>
    new Promise((go, refuse) => {
        const socket = new SockJS(`${url}/sock`, null, { transports: [transport] });
        socket.onmessage = ({ data }) => onMessage(data);
        socket.onopen = () => go(socket);
        socket.onclose = refuse;
    });
const closed = (socket) =>
    new Promise((go) => {
        if (socket.on) socket.on('close', (code) => go(code));
        else socket.onclose = ({ code }) => go(code);
        socket.close(1000);
    });

for (const transport of ['websocket', 'xhr-polling']) {
    const [a, b] = [await chat(plain), await chat(sockjs(transport))];
    a.socket.send('who am i');
    const name = await a.inbox.next();
    assert.match(name, /^user-/);
    b.socket.send('who am i');
    const other = await b.inbox.next();
    assert.match(other, /^user-/);
    for (let number = 0; number < 50; number++) {
        const text = `message ${number} "with" ünïcode`;
        (number % 2 ? a : b).socket.send(text);
        assert.equal(await a.inbox.next(), text);
        assert.equal(await b.inbox.next(), text);
    }
    assert.equal(await closed(a.socket), 1000);
    b.socket.send('still here');
    assert.equal(await b.inbox.next(), 'still here');
    assert.equal(await closed(b.socket), 1000);
    console.log(`chat by WebSocket-over-HTTP, with ws and sockjs-client (${transport}): passed`);
}

await suite.stop();
process.exit(0);
