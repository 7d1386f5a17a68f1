// SPDX-License-Identifier: AGPL-3.0-or-later
// The eventsource client and a site on Express with @fanoutio/grip, unchanged, with the suite: 200 events, while connections
// break and parts of the suite die. Argument: the directory of the programs.
import assert from 'node:assert/strict';
import { EventSource } from 'eventsource';
import { Site } from './news_site.mjs';
import { endAfter, freePort, Suite, until } from './suite.mjs';

endAfter(120);
const EVENTS = 200;
const DEATHS = { 30: 'pushpin-handler', 70: 'pushpin-proxy', 110: 'pushpin-frontend', 150: 'pushpin-outbound', 180: 'pushpin-handler' };

const publish = await freePort();
const site = await Site.start(publish);
const suite = await Suite.start(process.argv[2], { routes: `* 127.0.0.1:${site.port}`, publish });

const readers = Array.from({ length: 10 }, () => {
    const reader = { got: [], refused: [], source: new EventSource(`http://127.0.0.1:${suite.port}/events`) };
    reader.source.onmessage = ({ data }) => reader.got.push(Number(data));
    // As in browsers, a connection that breaks is made anew; a refusal is final.
    reader.source.onerror = ({ code }) => code && reader.refused.push(code);
    return reader;
});
async function allHave(count) {
    const all = Array.from({ length: count }, (_, index) => index + 1);
    for (const { got, refused } of readers) {
        await until(`all ${count} events are there`, () => got.length >= count || refused.length);
        assert.deepEqual(refused, []);
        assert.deepEqual(got, all);
    }
}
for (let number = 1; number <= EVENTS; number++) {
    await site.publish();
    if (number % 10 === 0) await allHave(number);
    if (number in DEATHS) await suite.killChild(DEATHS[number]);
}
console.log(`${EVENTS} events to ${readers.length} clients of eventsource, with parts that die: passed`);
for (const { source } of readers) source.close();
await suite.stop();
process.exit(0);
