// SPDX-License-Identifier: AGPL-3.0-or-later
// A number with its last two minutes, or what there has been of them.

import { number } from './format.js';

const KEPT = 120;
const FEWEST = 20;
const SVG = 'http://www.w3.org/2000/svg';

export class Tile {
  constructor(title, format = number) {
    this.format = format;
    this.values = [];
    this.element = document.createElement('div');
    this.element.className = 'tile';
    const heading = document.createElement('h3');
    heading.textContent = title;
    this.now = document.createElement('strong');
    this.more = document.createElement('p');
    const graph = (this.graph = document.createElementNS(SVG, 'svg'));
    graph.setAttribute('preserveAspectRatio', 'none');
    graph.setAttribute('aria-hidden', 'true');
    [this.area, this.line] = ['area', 'line'].map((name) => {
      const path = document.createElementNS(SVG, 'path');
      path.setAttribute('class', name);
      return path;
    });
    graph.append(this.area, this.line);
    this.element.append(heading, this.now, this.more, graph);
  }

  show(value, more) {
    this.now.textContent = this.format(value);
    this.more.textContent = more;
    this.more.title = more;
    if (value === undefined || value === null) return;
    this.values.push(value);
    if (this.values.length > KEPT) this.values.shift();
    const most = Math.max(1, ...this.values);
    const width = Math.max(FEWEST, this.values.length);
    const first = width - this.values.length;
    this.graph.setAttribute('viewBox', `0 0 ${width - 1} 1`);
    const points = this.values.map((point, index) => `${first + index},${(1 - point / most).toFixed(3)}`);
    this.line.setAttribute('d', `M${points.join('L')}`);
    this.area.setAttribute('d', `M${first},1L${points.join('L')}V1Z`);
  }
}
