// SPDX-License-Identifier: AGPL-3.0-or-later
// A site as the README of @fanoutio/serve-grip has it: a stream, a long-poll, and a chat by WebSocket-over-HTTP.
import express from 'express';
import { WebSocketMessageFormat } from '@fanoutio/grip';
import { ServeGrip } from '@fanoutio/serve-grip';

/** Gives the server, which listens at a port of its own. */
export function serve(publishPort) {
    const serveGrip = new ServeGrip({
        grip: { control_uri: `http://127.0.0.1:${publishPort}/`, control_iss: 'pushpin', key: 'changeme' },
        isGripProxyRequired: true,
    });
    const publisher = () => serveGrip.getPublisher();
    const site = express();
    site.use(serveGrip);

    site.get('/stream', (req, res) => {
        const instruct = res.grip.startInstruct();
        instruct.addChannel('news');
        instruct.setHoldStream();
        res.type('text/plain').end('[stream open]\n');
    });
    site.get('/poll', (req, res) => {
        const instruct = res.grip.startInstruct();
        instruct.addChannel('news');
        instruct.setHoldLongPoll(30);
        res.type('text/plain').end('nothing\n');
    });
    site.post('/news', express.text(), async (req, res) => {
        await publisher().publishHttpStream('news', `${req.body}\n`);
        await publisher().publishHttpResponse('news', `${req.body}\n`);
        res.end('ok\n');
    });
    site.post('/chat', async (req, res) => {
        const { wsContext } = req.grip;
        if (wsContext == null) return res.status(400).end('not a WebSocket\n');
        if (wsContext.isOpening()) {
            wsContext.accept();
            wsContext.subscribe('chat');
            wsContext.meta.user = `user-${wsContext.id.slice(0, 4)}`;
        }
        while (wsContext.canRecv()) {
            const message = wsContext.recv();
            if (message == null) {
                wsContext.close();
                break;
            }
            if (message === 'who am i') wsContext.send(wsContext.meta.user);
            else await publisher().publishFormats('chat', new WebSocketMessageFormat(message));
        }
        res.end();
    });
    return site.listen(0, '127.0.0.1');
}
