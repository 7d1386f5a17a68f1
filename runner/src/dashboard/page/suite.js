// SPDX-License-Identifier: AGPL-3.0-or-later
// How the suite is. Names of channels come from anybody: all text is put in as text, never as markup.

import { bytes, duration, marked, number, rate } from './format.js';
import { Tile } from './tile.js';

const $ = (id) => document.getElementById(id);

const tiles = {
  clients: new Tile('Connections'),
  held: new Tile('Held'),
  channels: new Tile('Channels'),
  requests: new Tile('Requests / s', rate),
  published: new Tile('Published / s', rate),
  delivered: new Tile('Delivered / s', rate),
  content: new Tile('Content / s', (value) => bytes(value)),
  lost: new Tile('Dropped / s', rate),
};
$('tiles').append(...Object.values(tiles).map((tile) => tile.element));

// Processes tell once a second, and so are snapshots taken: over several of both the one does not beat against the other.
const WINDOW = 4;
const past = [];

export function show(snapshot) {
  // A clock that was set back.
  if (past.length && snapshot.time <= past.at(-1).time) past.length = 0;
  const before = past[0];
  const seconds = before ? (snapshot.time - before.time) / 1000 : 0;
  // Counters begin anew when their process does.
  const grown = (now, then) => (now >= then ? now - then : now) / seconds;
  const speed = (pick) => (before ? grown(pick(snapshot), pick(before)) : undefined);

  about(snapshot.status);
  const { gauges, counters } = snapshot;
  const held = gauges.holds;
  const kinds = { stream: 'streams', response: 'polls', ws: 'sockets' };
  const parts = Object.entries(kinds).filter(([kind]) => held[kind]);
  tiles.clients.show(gauges.clients, `${number(gauges.sessions)} with a request`);
  tiles.held.show(sum(held), parts.map(([kind, name]) => `${number(held[kind])} ${name}`).join(' · '));
  tiles.channels.show(gauges.channels, '');
  tiles.requests.show(speed((s) => s.counters.requests), `${number(counters.requests)} in all`);
  tiles.published.show(speed((s) => s.counters.published), `${number(counters.published)} in all`);
  tiles.delivered.show(speed((s) => s.counters.deliveries), `${number(counters.deliveries)} in all`);
  tiles.content.show(speed((s) => s.counters.content), `${bytes(counters.content)} in all`);
  const drops = (s) => s.losses.filter((loss) => loss.kind === 'dropped').reduce((all, loss) => all + loss.count, 0);
  tiles.lost.show(speed(drops), `${number(drops(snapshot))} in all`);

  processes(snapshot, before, grown);
  channels(snapshot.channels);
  losses(snapshot, before, grown);
  past.push(snapshot);
  if (past.length > WINDOW) past.shift();
}

const sum = (counts) => Object.values(counts).reduce((all, count) => all + count, 0);

function about(status) {
  $('about').textContent =
    `Version ${status.version}, up ${duration(status.uptime_seconds)}, configuration ${status.config}`;
  $('missing').replaceChildren(...status.missing.map((text) => element('li', text)));
}

function processes(snapshot, before, grown) {
  const { status } = snapshot;
  const { pid, uptime_seconds, version } = status;
  const runner = { name: 'runner', state: 'serving', pid, uptime_seconds, version, restarts: 0, open: null };
  const rows = [runner, ...status.processes].map((process) => {
    const use = snapshot.usage[process.name];
    const then = before?.usage[process.name];
    const same = use && then && use.pid === then.pid;
    const end = process.last_end;
    return row([
      cell(process.name, 'name', end && `ended ${duration(end.seconds_ago)} ago: ${end.reason}`),
      Object.assign(cell(process.state, 'state'), { state: process.state }),
      cell(process.pid ?? '–', 'n', undefined, 'pid'),
      cell(process.uptime_seconds === null ? '–' : duration(process.uptime_seconds), 'n', undefined, 'up'),
      cell(number(process.restarts), 'n', undefined, 'restarts'),
      cell(process.open === null ? '–' : number(process.open), 'n', undefined, 'open'),
      cell(same ? `${(grown(use.cpu_seconds, then.cpu_seconds) * 100).toFixed(1)} %` : '–', 'n', undefined, 'CPU'),
      cell(use ? bytes(use.memory_bytes) : '–', 'n', undefined, 'memory'),
      cell(process.version ?? '–', 'version', undefined, 'version'),
    ]);
  });
  fill('processes', rows);
}

function channels({ list, missing }) {
  const total = ({ subscribers }) => sum(subscribers);
  const most = Math.max(1, ...list.map(total));
  const rows = list.map((channel) => {
    const { subscribers } = channel;
    const name = cell('', 'name');
    name.append(...marked(channel.channel === '' ? '(empty)' : channel.channel));
    const bar = element('span');
    bar.className = 'bar';
    bar.style.width = `${(total(channel) / most) * 100}%`;
    name.append(bar);
    const counts = [total(channel), subscribers['http-stream'], subscribers['http-response'], subscribers['ws-message']];
    return row([name, ...counts.map((count, index) => cell(number(count), index === 0 ? 'n' : 'n kind'))]);
  });
  fill('channels', rows);
  $('channels').hidden = list.length === 0;
  $('channels-note').textContent = list.length ? 'by subscribers' : '';
  $('no-channels').textContent = missing ?? (list.length ? '' : 'Nobody is subscribed to any.');
}

function losses({ losses: all }, before, grown) {
  const then = new Map(before?.losses.map((loss) => [`${loss.kind} ${loss.reason}`, loss.count]));
  const rows = all.map((loss) => {
    const now = before ? grown(loss.count, then.get(`${loss.kind} ${loss.reason}`) ?? 0) : 0;
    return row([
      cell(`${loss.kind}: ${loss.reason}`, 'name', loss.help),
      cell(now ? `${rate(now)} / s` : '–', 'n'),
      cell(number(loss.count), 'n'),
    ]);
  });
  fill('losses', rows);
  $('losses').hidden = rows.length === 0;
  $('no-losses').hidden = rows.length > 0;
}

function element(name, text = '') {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function cell(text, className, more, label) {
  const made = element('td', text);
  made.className = className;
  if (label) made.dataset.label = label;
  if (more) made.append(Object.assign(element('span', more), { className: 'more' }));
  return made;
}

function row(cells) {
  const made = element('tr');
  for (const one of cells) if (one.state) one.dataset.state = one.state;
  made.append(...cells);
  return made;
}

function fill(table, rows) {
  $(table).tBodies[0].replaceChildren(...rows);
}
