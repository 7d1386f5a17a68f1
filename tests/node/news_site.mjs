// SPDX-License-Identifier: AGPL-3.0-or-later
// A site of numbered news, for browser.html and eventsource.mjs. It is reliable as GRIP has it: each message tells which one was before it,
// each hold which one the client has, and a client that comes back says so too.
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import express from 'express';
import { WebSocketServer } from 'ws';
import { HttpResponseFormat, HttpStreamFormat, Item, Publisher, WebSocketMessageFormat } from '@fanoutio/grip';
import { ServeGrip } from '@fanoutio/serve-grip';

const PAGE = readFileSync(new URL('browser.html', import.meta.url));

export class Site {
    /** How many messages there are: the last one's number. */
    last = 0;
    /** How often clients or the suite asked what there is, polls apart. */
    asked = 0;

    static async start(publishPort) {
        const site = new Site();
        site.grip = { control_uri: `http://127.0.0.1:${publishPort}/`, control_iss: 'pushpin', key: 'changeme' };
        site.publisher = new Publisher(site.grip);
        site.server = site.app().listen(0, '127.0.0.1');
        await once(site.server, 'listening');
        site.passThrough();
        site.port = site.server.address().port;
        return site;
    }

    app() {
        const app = express();
        app.use(new ServeGrip({ grip: this.grip }));
        app.get('/', (req, res) => res.type('html').end(PAGE));
        app.get('/events', (req, res) => this.events(req, res));
        app.get('/poll', (req, res) => this.poll(req, res));
        app.post('/over-http', (req, res) => {
            this.overHttp(req.grip.wsContext);
            res.end();
        });
        return app;
    }

    overHttp(socket) {
        if (socket.isOpening()) {
            socket.accept();
            socket.subscribe('news');
        }
        while (socket.canRecv()) {
            let message = null;
            try {
                message = socket.recv();
            } catch {} // it is gone without a goodbye
            if (message == null) return socket.close();
            socket.send(this.answer(message));
        }
    }

    since(number) {
        return Array.from({ length: this.last - number }, (_, index) => number + index + 1);
    }

    events(req, res) {
        this.asked++;
        // From the suite when it asks again, from the link, or from the browser when it comes back.
        const known = /last-id=(\d+)/.exec(req.get('grip-last'))?.[1] ?? req.query.after ?? req.get('last-event-id') ?? 0;
        res.set({
            'Content-Type': 'text/event-stream',
            'Grip-Hold': 'stream',
            'Grip-Channel': `news; prev-id=${this.last}`,
            'Grip-Link': `</events?after=${this.last}>; rel=next`,
        });
        res.end(`retry: 50\n\n${this.since(Number(known)).map(event).join('')}`);
    }

    poll(req, res) {
        const known = Number(req.query.after);
        if (known >= this.last) {
            res.set({ 'Grip-Hold': 'response', 'Grip-Channel': `news; prev-id=${this.last}`, 'Grip-Timeout': '20' });
        }
        res.json(this.since(known));
    }

    /** What a WebSocket gets for a message: "since N", or anything that is to come back. */
    answer(message) {
        const [word, number] = message.split(' ');
        if (word !== 'since') return message;
        this.asked++;
        return this.since(Number(number)).join(' ');
    }

    /** The WebSocket that passes through the suite, with GRIP. */
    passThrough() {
        const server = new WebSocketServer({ server: this.server, path: '/through', perMessageDeflate: false });
        server.on('headers', (headers) => headers.push('Sec-WebSocket-Extensions: grip'));
        server.on('connection', (socket) => {
            socket.send(`c:${JSON.stringify({ type: 'subscribe', channel: 'news' })}`);
            socket.on('message', (data) => socket.send(`m:${this.answer(data.toString())}`));
        });
    }

    /** Publishes the next message, and waits until the suite has taken it. */
    async publish() {
        const number = this.last + 1;
        const formats = [
            new HttpStreamFormat(event(number)),
            new HttpResponseFormat({ headers: { 'Content-Type': 'application/json' }, body: `[${number}]` }),
            new WebSocketMessageFormat(`${number}`),
        ];
        const item = new Item(formats, `${number}`, `${number - 1}`);
        this.last = number;
        // A handler that has just died takes none: asked again until there is another.
        while (!(await this.publisher.publish('news', item).then(() => true, () => false))) {
            await new Promise((go) => setTimeout(go, 20));
        }
    }
}

const event = (number) => `id: ${number}\ndata: ${number}\n\n`;
