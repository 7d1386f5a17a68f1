// SPDX-License-Identifier: AGPL-3.0-or-later
// Two backends that send back what they get: by WebSocket (the library ws), and by WebSocket-over-HTTP.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';
import { decodeWebSocketEvents, encodeWebSocketEvents, WebSocketEvent } from '@fanoutio/grip';

const ANSWERS = { OPEN: 'OPEN', TEXT: 'TEXT', BINARY: 'BINARY', PING: 'PONG', CLOSE: 'CLOSE' };

async function answer(request, response) {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const events = decodeWebSocketEvents(Buffer.concat(chunks))
        .filter((event) => event.type in ANSWERS)
        .map((event) => new WebSocketEvent(ANSWERS[event.type], event.content));
    response.setHeader('Content-Type', 'application/websocket-events');
    response.end(encodeWebSocketEvents(events));
}

async function port(server) {
    await once(server.listen(0, '127.0.0.1'), 'listening');
    return server.address().port;
}

/** Gives its port. */
export const echoOverHttp = () => port(createServer(answer));

/** Gives its port. */
export function echo() {
    const server = createServer((request, response) => response.writeHead(426).end());
    // No limit of its own: it is to be as patient as the cases are large.
    const sockets = new WebSocketServer({ server, maxPayload: 0, maxFragments: 0, maxBufferedChunks: 0, perMessageDeflate: true });
    sockets.on('connection', (socket) => {
        socket.on('message', (data, binary) => socket.send(data, { binary }));
        socket.on('error', () => {}); // many cases break the rules
    });
    return port(server);
}
