// SPDX-License-Identifier: AGPL-3.0-or-later
// The page: which part of it is shown, and the snapshots that it is fed with, one a second.

import { show } from './suite.js';
import { ask, events, setToken } from './stream.js';
import './try.js';

const $ = (id) => document.getElementById(id);
const RETRY = 1000;
// A runner that is silent for longer has gone, even if the connection does not say so.
const SILENT = 5000;
let admitted = false;

function state(name, text) {
  $('state').dataset.state = name;
  $('state').textContent = text;
}

function turn() {
  const part = location.hash === '#try' ? 'try' : 'suite';
  for (const id of ['suite', 'try']) $(id).hidden = !admitted || id !== part;
  for (const link of document.querySelectorAll('nav a')) {
    if (link.hash === `#${part}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
}

/** Shows what comes until it ends. Gives what is wrong with the token, if that is wrong. */
async function follow() {
  const abort = new AbortController();
  let timer = setTimeout(() => abort.abort(), SILENT);
  try {
    const response = await ask('events', { signal: abort.signal });
    if (response.status === 401 || response.status === 403) return (await response.text()).trim();
    if (!response.ok) throw new Error(await response.text());
    admitted = true;
    turn();
    for await (const snapshot of events(response)) {
      clearTimeout(timer);
      timer = setTimeout(() => abort.abort(), SILENT);
      const { ready } = snapshot.status;
      state(ready ? 'ready' : 'missing', ready ? 'ready' : 'not ready');
      show(snapshot);
    }
  } finally {
    clearTimeout(timer);
  }
}

async function run() {
  for (;;) {
    let refused;
    try {
      refused = await follow();
      if (refused === undefined) state('lost', 'the runner has gone');
    } catch (error) {
      state('lost', 'the runner does not answer');
    }
    if (refused !== undefined) await login(refused);
    else await new Promise((go) => setTimeout(go, RETRY));
  }
}

/** Waits for another token. */
function login(refused) {
  admitted = false;
  turn();
  $('ask').hidden = false;
  // The first time nothing has been tried.
  $('refused').textContent = sessionStorage.getItem('token') ? refused : '';
  state('waiting', 'a token is needed');
  $('token').focus();
  return new Promise((go) => {
    $('ask').onsubmit = (event) => {
      event.preventDefault();
      setToken($('token').value.trim());
      $('token').value = '';
      $('ask').hidden = true;
      go();
    };
  });
}

addEventListener('hashchange', turn);
turn();
run();
