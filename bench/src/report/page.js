// The page: the report as it was read, its tables, and the order of everything.

// What is missing or of another type becomes nothing: the report may be of another version, or of somebody who means harm.
const list = (value) => (Array.isArray(value) ? value.filter((item) => item !== null) : []);
const object = (value) => (value !== null && typeof value === 'object' ? value : {});
const number = (value) => (Number.isFinite(value) ? value : NaN);
const text = (value) => (typeof value === 'string' || Number.isFinite(value) ? `${value}` : '');
const pairs = (value) => list(value).filter(Array.isArray);
const distinct = (values) => [...new Set(values)];

function readReport(raw) {
  const { version, commit, command, began } = object(raw.program);
  return {
    built: { version: text(version) || 'unknown', commit: text(commit) || 'unknown' },
    command: list(command).map((word) => quoted(text(word))).join(' '),
    began: new Date(number(began) * 1000),
    facts: pairs(object(raw.machine).facts).map(([name, value]) => [text(name), text(value)]),
    limits: list(raw.limits).map(readFigure),
    results: list(raw.results).map(readResult),
    notes: list(raw.notes).map(text),
  };
}

function readResult(raw) {
  const shares = list(raw.budget).map(({ name, mean_us }) => ({ name: text(name), us: number(mean_us) }));
  return {
    case: text(raw.case),
    subject: text(raw.subject),
    load: text(raw.load),
    isLoadBound: raw.load_bound === true,
    figures: list(raw.figures).map(readFigure),
    timings: list(raw.timings).map(readTiming),
    seconds: list(raw.each_second).map(readSecond).filter(({ run, at }) => run >= 0 && at > 0),
    budget: shares.filter(({ us }) => us >= 0),
    notes: list(raw.notes).map(text),
  };
}

function readFigure({ name, unit, better, value, runs, limits }) {
  const ratios = list(limits).map(({ of, ratio }) => ({ of: text(of), ratio: number(ratio) }));
  return {
    name: text(name),
    unit: text(unit),
    better: text(better),
    value: number(value),
    runs: list(runs).filter(Number.isFinite),
    limits: ratios.filter(({ ratio }) => ratio >= 0),
  };
}

const isPoint = ({ part, us }) => part >= 0 && part < 1 && isTime(us);

function readTiming({ name, latency, curve }) {
  const points = pairs(curve).map(([part, us]) => ({ part: number(part), us: number(us) }));
  const percentiles = Object.entries(object(latency)).map(([field, us]) => [field, number(us)]);
  return { name: text(name), latency: Object.fromEntries(percentiles), curve: points.filter(isPoint) };
}

function readSecond({ run, at, records_per_second, intended_per_second, p50_us, p99_us, max_us }) {
  const [p50, p99, max] = [p50_us, p99_us, max_us].map(number);
  const [records, intended] = [records_per_second, intended_per_second].map(number);
  return { run: number(run), at: number(at), records, intended, p50, p99, max };
}

// A word of a command line as a shell takes it.
const quoted = (word) => (/^[\w\-./:=,@%+]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`);

// Numbers as people read them.

function inUnit(value, unit) {
  // Every rate that is not of bytes counts records.
  if (unit === '1/s') return [value, 'records/s'];
  if (unit !== 'B/s' && unit !== 'B') return [value, unit];
  const [size, prefix] = [[1e9, 'G'], [1e6, 'M'], [1e3, 'k']].find(([size]) => Math.abs(value) >= size) ?? [1, ''];
  return [value / size, prefix + unit];
}

function amount(value, unit) {
  const [scaled, called] = inUnit(value, unit);
  return `${decimal(scaled)} ${called}`.trim();
}

// Of several runs. The unit is left out where it is that of the value beside it.
function spread({ value, runs, unit }) {
  if (runs.length < 2) return '';
  const ends = extent(runs);
  const isSameUnit = ends.every((end) => inUnit(end, unit)[1] === inUnit(value, unit)[1]);
  return ends.map((end) => (isSameUnit ? decimal(inUnit(end, unit)[0]) : amount(end, unit))).join(' to ');
}

// Tables.

// Wide ones scroll in their box, which the keyboard can reach.
function table(caption, head, rows, look = '') {
  const cells = ([first, ...rest]) => [html('th', { scope: 'row' }, first), ...rest.map((cell) => html('td', {}, cell))];
  const heads = html('tr', {}, head.map((name) => html('th', { scope: 'col' }, name)));
  const body = rows.map((row) => html('tr', {}, cells(row)));
  const title = html('caption', {}, html('span', {}, caption));
  const inside = html('table', {}, title, html('thead', {}, heads), html('tbody', {}, body));
  return html('div', { class: `scroll ${look}`, role: 'region', tabindex: '0', 'aria-label': caption }, inside);
}

function figureTable(results) {
  const names = distinct(results.flatMap(({ figures }) => figures.map(({ name }) => name)));
  if (!names.length) return [];
  const cell = (name) => ({ figures }) => figureCell(figures.find((figure) => figure.name === name));
  const rows = names.map((name) => [name, ...results.map(cell(name))]);
  const caption = 'Medians of the runs, percentiles of all their samples; beside them the span of the runs';
  return [table(caption, ['figure', ...results.map(({ name }) => name)], rows, results.length > 2 ? '' : 'few')];
}

function figureCell(figure) {
  if (!figure) return '-';
  const ratios = figure.limits.map(({ of, ratio }) => html('span', {}, `${ratioText(ratio)} of ${of}`));
  const each = `runs: ${figure.runs.map((run) => amount(run, figure.unit)).join(', ')}`;
  const value = html('span', {}, amount(figure.value, figure.unit));
  return html('div', { class: 'figure' }, value, html('small', { title: each }, spread(figure)), html('small', {}, ratios));
}

// Name, field, and the part of the samples that it is of.
const LATENCIES = [['mean', 'mean_us', 0], ['p50', 'p50_us', 0.5], ['p90', 'p90_us', 0.9], ['p99', 'p99_us', 0.99],
  ['p99.9', 'p999_us', 0.999], ['p99.99', 'p9999_us', 0.9999], ['max', 'max_us', 0]];

function latencyTable(results) {
  const row = (result) => ({ name, latency }) => {
    // Of 100 samples none lies beyond the 99.9th percentile, so nothing is known of it.
    const isKnown = (part) => number(latency.count) * (1 - part) > 1 - 1e-9;
    const cells = LATENCIES.map(([, field, part]) => (isKnown(part) ? decimal(latency[field]) : '-'));
    return [called(results, result, name), decimal(latency.count), ...cells];
  };
  const rows = results.flatMap((result) => result.timings.map(row(result)));
  const head = ['latency, us', 'samples', ...LATENCIES.map(([name]) => name)];
  return rows.length ? [table('Latency of the samples of all runs together; - where they are too few to tell', head, rows)] : [];
}

// The page.

const section = (title, id, ...content) => html('section', { id }, html('h2', {}, title), ...content);
const notes = (texts) => (texts.length ? [html('ul', { class: 'notes' }, texts.map((note) => html('li', {}, note)))] : []);

function header({ built, began, command, notes: remarks }) {
  const day = Number.isNaN(began.getTime()) ? [] : [`${began.toISOString().slice(0, 16).replace('T', ' ')} UTC`];
  const words = [...day, `version ${built.version}`, `commit ${built.commit}`].join(' · ');
  const code = html('code', {}, command);
  return html('header', {}, html('h1', {}, 'corelog bench'), html('p', { class: 'built' }, words),
    html('div', { class: 'command' }, code, copyButton(code)), notes(remarks));
}

// Where the browser keeps the clipboard from a page that is a file, the text is selected instead.
function copyButton(code) {
  const button = html('button', { type: 'button', 'aria-live': 'polite' }, 'Copy');
  const copy = async () => {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = 'Copied';
  };
  const select = () => {
    getSelection().selectAllChildren(code);
    button.textContent = 'Selected: press Ctrl-C';
  };
  button.addEventListener('click', () => copy().catch(select));
  return button;
}

function machine({ facts, limits }) {
  const described = facts.map(([name, value]) => html('div', {}, html('dt', {}, name), html('dd', {}, breakable(value))));
  const rows = limits.map((figure) => [figure.name, amount(figure.value, figure.unit), spread(figure)]);
  const caption = 'Limits of the machine, measured in turns with the results; percentiles are of all samples';
  const measured = rows.length ? table(caption, ['limit', 'value', 'runs'], rows) : [];
  const listed = facts.length ? html('dl', {}, described) : [];
  return section('Machine', anchor(0), html('div', { class: 'machine' }, listed, measured));
}

// Mount options are one long word; it may be parted at its commas.
const breakable = (words) => words.split(/(?<=,)/).flatMap((part) => [part, html('wbr')]);

const anchor = (index) => `section-${index}`;

function contents(cases) {
  if (cases.length <= 3) return [];
  const link = (name, index) => html('li', {}, html('a', { href: `#${anchor(index)}` }, name));
  return [html('nav', { 'aria-label': 'Contents' }, html('ol', {}, ['Machine', ...cases].map(link)))];
}

// What a result is called beside the others of its case.
function named(results) {
  const kinds = (of) => distinct(results.map(of)).length;
  const [subjects, loads] = [kinds(({ subject }) => subject), kinds(({ load }) => load)];
  const name = ({ subject, load }) => (loads === 1 ? subject : subjects === 1 ? load : `${subject}, ${load}`);
  return results.map((result) => ({ ...result, name: name(result) }));
}

function loadList(results) {
  const bound = (subject) => `load-bound: the load generator, not ${subject}, set the pace`;
  const badge = ({ subject }) => html('strong', { class: 'badge' }, bound(subject));
  const item = (load) => {
    const own = results.filter((result) => result.load === load);
    const subjects = distinct(own.map(({ subject }) => subject)).join(' and ');
    return html('li', {}, html('b', {}, subjects), ` · ${load} `, own.filter(({ isLoadBound }) => isLoadBound).map(badge));
  };
  return html('ul', {}, distinct(results.map(({ load }) => load)).map(item));
}

function caseSection(name, index, all) {
  const results = named(all.filter((result) => result.case === name));
  const remarks = results.flatMap((result) => result.notes.map((note) => called(results, result, note)));
  const drawn = [acrossLoads, ratioBars, budgets, percentileCurve, latencyOverTime, throughputOverTime];
  const tables = [...figureTable(results), ...latencyTable(results)];
  const panels = html('div', { class: 'panels' }, drawn.flatMap((draw) => draw(results)));
  return section(name, anchor(index + 1), loadList(results), notes(remarks), tables, panels);
}

function show(report) {
  const cases = distinct(report.results.map((result) => result.case));
  const sections = cases.map((name, index) => caseSection(name, index, report.results));
  document.getElementById('report').replaceChildren(header(report), ...contents(cases), machine(report), ...sections);
  drawCharts();
  addEventListener('resize', drawCharts);
}

try {
  show(readReport(object(JSON.parse(document.getElementById('data').textContent))));
} catch (error) {
  const words = `This report cannot be shown (${error.message}): run the benchmark again with --html.`;
  document.getElementById('report').append(html('p', {}, words));
}
