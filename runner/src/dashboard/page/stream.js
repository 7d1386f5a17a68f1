// SPDX-License-Identifier: AGPL-3.0-or-later
// Server-sent events by fetch: EventSource can not send a token.

let token = sessionStorage.getItem('token');

export function setToken(text) {
  token = text;
  sessionStorage.setItem('token', text);
}

/** A request to the runner, with the token if there is one. */
export function ask(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (options.body) headers['Content-Type'] = 'application/json';
  return fetch(path, { ...options, headers, cache: 'no-store', credentials: 'omit' });
}

/** Each event of a response, as what its data says. */
export async function* events(response) {
  let text = '';
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (text + value).split('\n\n');
    text = blocks.pop();
    for (const block of blocks) {
      const data = block.split('\n').filter((line) => line.startsWith('data: ')).map((line) => line.slice(6));
      if (data.length) yield JSON.parse(data.join('\n'));
    }
  }
}
