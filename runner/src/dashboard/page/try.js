// SPDX-License-Identifier: AGPL-3.0-or-later
// Holds a path through the suite, publishes to a channel, and shows the bytes as they come.

import { marked } from './format.js';
import { ask, events } from './stream.js';

const $ = (id) => document.getElementById(id);
const SHOWN = 500;
const decoder = new TextDecoder();
const rows = [];
let abort;
let begun = 0;

$('hold').addEventListener('submit', async (event) => {
  event.preventDefault();
  if (abort) return abort.abort();
  const mine = (abort = new AbortController());
  $('hold-button').textContent = 'Let go';
  rows.length = 0;
  $('bytes').replaceChildren();
  begun = performance.now();
  try {
    const body = JSON.stringify({ path: $('path').value, host: $('host').value });
    const response = await ask('hold', { method: 'POST', body, signal: mine.signal });
    if (!response.ok) add('end', await response.text());
    else {
      for await (const { kind, text } of events(response)) {
        add(kind, kind === 'end' ? text : Uint8Array.from(text, (byte) => byte.charCodeAt(0)));
      }
    }
  } catch (error) {
    add('end', mine.signal.aborted ? 'let go' : `broken off: ${error.message}`);
  }
  abort = undefined;
  $('hold-button').textContent = 'Hold';
});

$('publish').addEventListener('submit', async (event) => {
  event.preventDefault();
  const content = $('content').value;
  const formats = {
    'http-stream': { content: `${content}\n` },
    'http-response': { body: `${content}\n` },
    'ws-message': { content },
  };
  try {
    const body = JSON.stringify({ items: [{ channel: $('channel').value, formats }] });
    const response = await ask('publish', { method: 'POST', body });
    const text = await response.text();
    $('published').textContent = response.ok ? told(JSON.parse(text).items[0]) : text;
  } catch (error) {
    $('published').textContent = `Not published: ${error.message}`;
  }
});

$('hex').addEventListener('change', () => {
  $('bytes').replaceChildren();
  rows.forEach(draw);
});

function told({ result, receivers }) {
  const names = { 'http-stream': 'streams', 'http-response': 'long-polls', 'ws-message': 'WebSockets' };
  const counts = Object.entries(receivers ?? {}).map(([format, count]) => `${names[format] ?? format} ${count}`);
  return `Published: ${[result, ...counts].filter(Boolean).join(', ')}.`;
}

function add(kind, content) {
  const row = { kind, content, at: performance.now() - begun };
  rows.push(row);
  draw(row);
  if (rows.length > SHOWN) {
    rows.shift();
    $('bytes').firstChild.remove();
  }
  const received = rows.filter((one) => one.kind === 'received');
  const count = received.reduce((all, one) => all + one.content.length, 0);
  $('bytes-note').textContent = `${count} received`;
}

function draw({ kind, content, at }) {
  const item = document.createElement('li');
  item.className = kind;
  const time = document.createElement('time');
  time.textContent = `${(at / 1000).toFixed(3)} s`;
  const text = document.createElement('pre');
  if (typeof content === 'string') text.textContent = content;
  else if ($('hex').checked) text.textContent = hex(content);
  else text.append(...marked(decoder.decode(content)));
  item.append(time, text);
  $('bytes').append(item);
  $('bytes').scrollTop = $('bytes').scrollHeight;
  $('no-bytes').hidden = true;
}

const hex = (content) => Array.from(content, (byte) => byte.toString(16).padStart(2, '0')).join(' ');
