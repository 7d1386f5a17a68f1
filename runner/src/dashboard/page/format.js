// SPDX-License-Identifier: AGPL-3.0-or-later
// Numbers and texts as people read them.

const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat('en-US', { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export const number = (value) => (value === undefined || value === null ? '–' : whole.format(value));

/** Events in a second: with tenths while they are few. */
export const rate = (value) => (value > 0 && value < 10 ? tenths.format(value) : number(value));

export function bytes(value) {
  if (value === undefined || value === null) return '–';
  let unit = 0;
  while (value >= 1000 && unit < 4) {
    value /= 1024;
    unit += 1;
  }
  return `${unit === 0 || value >= 100 ? whole.format(value) : tenths.format(value)} ${['B', 'KiB', 'MiB', 'GiB', 'TiB'][unit]}`;
}

/** `5s`, `3m 20s`, `2h 5m`, `4d 3h`, as `ctl status` has it. */
export function duration(seconds) {
  const [minutes, hours, days] = [60, 3600, 86400].map((length) => Math.floor(seconds / length));
  if (minutes === 0) return `${seconds}s`;
  if (hours === 0) return `${minutes}m ${seconds % 60}s`;
  return days === 0 ? `${hours}h ${minutes % 60}m` : `${days}d ${hours % 24}h`;
}

/** Text, with marks for what can not be seen or turns the order of what can. */
export function marked(text) {
  const names = { '\r': '\\r', '\n': '\\n\n', '\t': '\\t' };
  return text.split(/([\p{Cc}\p{Cf}])/u).map((part, index) => {
    if (index % 2 === 0) return part;
    const mark = document.createElement('i');
    mark.textContent = names[part] ?? `\\u{${part.codePointAt(0).toString(16)}}`;
    return mark;
  });
}
