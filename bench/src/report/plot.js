'use strict';

// Elements, and plots of lines on axes, for page.html: nothing here knows what a report is.

// Texts become text nodes, never markup: what is in a report may come from anybody.
function build(node, attributes, children) {
  Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
  node.append(...children.flat(2));
  return node;
}

const html = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  build(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);

const path = (look, d, ...children) => svg('path', { class: look, d }, ...children);
const label = (x, y, look, words) => svg('text', { x, y, class: look }, words);
const tip = (words) => svg('title', {}, words);
const picture = (width, height, description, ...children) =>
  svg('svg', { viewBox: `0 0 ${width} ${height}`, width, height, role: 'img', 'aria-label': description }, ...children);

const extent = (values) =>
  values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);

// Three digits, or all that are before the point.
function decimal(value) {
  if (!Number.isFinite(value)) return '-';
  const size = Math.abs(value);
  const isLong = size >= 100 ? { maximumFractionDigits: 0 } : { maximumFractionDigits: 2 };
  return value.toLocaleString('en-US', size >= 1 ? isLong : { maximumSignificantDigits: 3 });
}

// Text in charts has the page's size on every screen, so a chart is drawn for the width that it has, and again when that changes.
const charts = [];

// A figure; `draw` makes its picture for a width in pixels. Legend entries have a name and a look, which is a class of page.css.
function chart(caption, legend, draw) {
  const box = html('div', { class: 'chart' });
  charts.push({ box, draw, width: 0 });
  return html('figure', {}, html('figcaption', {}, caption), legend.length ? legendList(legend) : [], box);
}

// All widths are read before anything is drawn: the browser would lay out the page anew for each one otherwise.
function drawCharts() {
  charts.forEach((chart) => { chart.next = Math.max(200, Math.floor(chart.box.clientWidth)); });
  charts.filter((chart) => chart.next !== chart.width).forEach((chart) => {
    chart.width = chart.next;
    chart.box.replaceChildren(chart.draw(chart.width));
  });
}

function legendList(entries) {
  const mark = ({ look, isFilled }) => (isFilled ? path(look, 'M0 0H12V12H0Z') : path(`line ${look}`, 'M1 6H25'));
  const sample = (entry) => svg('svg', { width: entry.isFilled ? 12 : 26, height: 12, 'aria-hidden': 'true' }, mark(entry));
  const item = (entry) => html('li', {}, sample(entry), html('span', {}, entry.name));
  return html('ul', { class: 'legend' }, entries.map(item));
}

// A scale has ticks, and places values between 0 and 1.

// Of numbers above 0: ticks at 1, 2 and 5 times powers of ten, or at powers alone where these would be too many.
function logScale(values) {
  const [low, high] = extent(values);
  const [least, most] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const isWide = high / low > 100;
  const powers = Array.from({ length: most - least + 2 }, (_, step) => least + step);
  const all = powers.flatMap((power) => (isWide ? [1] : [1, 2, 5]).map((times) => Number(`${times}e${power}`)));
  const first = all.findLastIndex((tick) => tick <= low);
  const last = all.findIndex((tick, index) => index > first && tick >= high);
  const every = isWide ? Math.ceil((last - first) / 6) : 1;
  const ticks = all.slice(first, last + 1).filter((_, index) => index % every === 0);
  const [from, to] = [Math.log10(all[first]), Math.log10(all[last])];
  return { ticks, place: (value) => (Math.log10(value) - from) / (to - from) };
}

const niceStep = (least) => {
  const power = 10 ** Math.floor(Math.log10(least));
  return [1, 2, 5, 10].map((times) => times * power).find((step) => step >= least * (1 - 1e-9));
};

// From 0 to `high`, or where `isRound` to the tick after it.
function linearScale(high, count, isRound) {
  const step = niceStep((high || 1) / count);
  const end = isRound ? Math.max(1, Math.ceil(high / step - 1e-9)) * step : high || 1;
  const ticks = Array.from({ length: Math.floor(end / step + 1e-9) + 1 }, (_, index) => index * step);
  return { ticks, place: (value) => value / end };
}

const PLOT = { height: 270, top: 36, bottom: 44, right: 16 };

// Lines on axes.
//   x      label; ticks as [place, words]; all places across are from 0 to 1
//   y      label, scale
//   lines  look; segments: points {x, y} with x a place; dots: points with the tip that is shown for them
//   spans  {from, to, words}: stretches of x that a thin line parts
function plot(width, description, { x, y, lines, spans = [] }) {
  const left = 12 + 7 * Math.max(...y.scale.ticks.map((tick) => decimal(tick).length));
  const across = (place) => left + place * (width - left - PLOT.right);
  const down = (value) => PLOT.height - PLOT.bottom - y.scale.place(value) * (PLOT.height - PLOT.top - PLOT.bottom);
  return picture(width, PLOT.height, description, [
    label(0, 12, 'axis', y.label),
    label(across(0.5), PLOT.height - 6, 'axis middle', x.label),
    ...y.scale.ticks.map((tick) => horizontal(decimal(tick), left, width - PLOT.right, down(tick))),
    ...apart(x.ticks, across, width).map(([place, words]) => vertical(words, across(place))),
    ...spans.map((span) => parted(span, across)),
    ...lines.map((line) => drawLine(line, across, down)),
    ...lines.flatMap((line) => drawDots(line, across, down)),
  ]);
}

function horizontal(words, left, right, y) {
  return svg('g', {}, path('grid', `M${left} ${y}H${right}`), label(left - 6, y + 4, 'tick end', words));
}

function vertical(words, x) {
  const floor = PLOT.height - PLOT.bottom;
  return svg('g', {}, path('grid', `M${x} ${PLOT.top}V${floor + 4}`), label(x, floor + 18, 'tick middle', words));
}

function parted({ from, to, words }, across) {
  const line = path('rule', `M${across(from)} ${PLOT.top - 16}V${PLOT.height - PLOT.bottom}`);
  const hasRoom = across(to) - across(from) > 12 + 7 * words.length;
  const middle = across((from + to) / 2);
  return svg('g', {}, from > 0 ? line : [], hasRoom ? label(middle, PLOT.top - 8, 'tick middle', words) : []);
}

// Those of the ticks whose words do not run into the ones before, nor out of the picture.
function apart(ticks, across, width) {
  let end = -Infinity;
  return ticks.filter(([place, words]) => {
    const half = 3.5 * words.length;
    const fits = across(place) - half > end && across(place) + half <= width + 4;
    if (fits) end = across(place) + half + 6;
    return fits;
  });
}

function drawLine({ look, segments }, across, down) {
  const at = ({ x, y }) => `${across(x).toFixed(1)} ${down(y).toFixed(1)}`;
  return path(`line ${look}`, segments.map((points) => `M${points.map(at).join('L')}`).join(''));
}

// Where they are many they are seen under the pointer only.
function drawDots({ look, dots = [] }, across, down) {
  const shape = dots.length > 24 ? { class: `dot hidden ${look}`, r: 5 } : { class: `dot ${look}`, r: 3 };
  const at = ({ x, y }) => ({ cx: across(x).toFixed(1), cy: down(y).toFixed(1) });
  return dots.map((dot) => svg('circle', { ...shape, ...at(dot) }, tip(dot.tip)));
}
