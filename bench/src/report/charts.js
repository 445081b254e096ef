// The charts of the results of one case: each function makes the figures that there is data for, which may be none.

const COLORS = 7;
const color = (index) => `c${index % COLORS}`;

// What a logarithmic scale shows.
const isTime = (us) => us > 1e-3 && us < 1e12;
const isRate = (value) => value >= 0 && value < 1e15;

const isAlone = (results) => results.length === 1;
const called = (results, result, what) => (isAlone(results) ? what : `${result.name}, ${what}`);

const PARTS = [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999];
// Equal steps for each factor of ten in what lies beyond a percentile.
const rarity = (part) => -Math.log10(1 - part);

// 0.999 is "99.9 %": as many digits as the percentile needs.
const percentile = (part) => `${Number((part * 100).toFixed(Math.ceil(rarity(part))))} %`;

function percentileCurve(results) {
  const timings = results.flatMap((result) => result.timings.map((timing) => ({ ...timing, result })));
  const curves = timings.filter(({ curve }) => curve.length);
  if (!curves.length) return [];
  const isOneKind = distinct(curves.map((curve) => curve.name)).length === 1 && !isAlone(results);
  const name = ({ name, result }) => (isOneKind ? result.name : called(results, result, name));
  const legend = curves.map((curve, index) => ({ name: name(curve), look: color(index), curve: curve.curve }));
  const points = legend.flatMap(({ curve }) => curve);
  const end = Math.max(1, ...points.map(({ part }) => rarity(part)));
  const parts = PARTS.filter((part) => rarity(part) <= end + 0.01);
  const lines = legend.map((line) => curveLine(line, end));
  const x = { label: 'percentile', ticks: parts.map((part) => [rarity(part) / end, percentile(part)]) };
  const y = { label: 'us (log)', scale: logScale(points.map(({ us }) => us)) };
  const last = ({ name, curve }) => `${name}: ${percentile(curve.at(-1).part)} within ${decimal(curve.at(-1).us)} us`;
  const description = `Percentiles of latency. ${legend.map(last).join('; ')}`;
  return [chart('Percentiles of latency', legend, (width) => plot(width, description, { x, y, lines }))];
}

function curveLine({ name, look, curve }, end) {
  const words = ({ part, us }) => `${name}, ${percentile(part)}: ${decimal(us)} us`;
  const dots = curve.map((point) => ({ x: rarity(point.part) / end, y: point.us, tip: words(point) }));
  return { look, segments: [dots], dots };
}

// Runs one after the other. A second is a stretch of them: `begin` and `end` are places across.
function timeline(results) {
  const lengths = new Map();
  const seconds = results.flatMap((result) => result.seconds);
  seconds.forEach(({ run, at }) => lengths.set(run, Math.max(lengths.get(run) ?? 0, at)));
  let total = 0;
  const next = ([run, length]) => ({ run, from: total, to: (total += length) });
  const runs = [...lengths].sort(([one], [other]) => one - other).map(next);
  const { ticks, place } = linearScale(total, 6, false);
  const label = runs.length > 1 ? 'seconds, runs one after the other' : 'seconds';
  return {
    x: { label, ticks: ticks.map((tick) => [place(tick), decimal(tick)]) },
    spans: runs.map(({ run, from, to }) => ({ from: place(from), to: place(to), words: `run ${run + 1}` })),
    runsOf: (result) => runs.map((run) => placed(result.seconds, run, place)),
  };
}

function placed(seconds, { run, from }, place) {
  const own = seconds.filter((second) => second.run === run);
  const begin = (index) => place(from + (own[index - 1]?.at ?? 0));
  return own.map((second, index) => ({ ...second, begin: begin(index), end: place(from + second.at) }));
}

// A stair of one value of each second. It breaks between runs, and where there is nothing to show.
function stair(time, result, look, field, isShown, words) {
  const segments = time.runsOf(result).flatMap((seconds) => {
    const parts = [[]];
    seconds.forEach((second) => (isShown(second[field]) ? parts.at(-1).push(second) : parts.push([])));
    return parts.filter((part) => part.length);
  });
  const steps = ({ begin, end, [field]: y }) => [{ x: begin, y }, { x: end, y }];
  const when = ({ run, at }) => `run ${run + 1}, ${decimal(at)} s`;
  const dot = (second) => ({ x: (second.begin + second.end) / 2, y: second[field], tip: `${when(second)}: ${words(second)}` });
  return { look, segments: segments.map((part) => part.flatMap(steps)), dots: segments.flat().map(dot) };
}

const heights = (lines) => lines.flatMap(({ dots }) => dots).map(({ y }) => y);

const legendOf = (results) =>
  results.map(({ name, seconds }, index) => ({ name, seconds, look: color(index) })).filter(({ seconds }) => seconds.length);

const STATISTICS = [['p50', ''], ['p99', 'dashed'], ['max', 'dotted']];

function latencyOverTime(results) {
  const time = timeline(results);
  const lines = results.flatMap((result, index) => STATISTICS.map(([field, dash]) => {
    const words = (second) => `${called(results, result, field)} ${decimal(second[field])} us`;
    return stair(time, result, `${color(index)} ${dash}`, field, isTime, words);
  }));
  const shown = heights(lines);
  if (!shown.length) return [];
  const plain = isAlone(results) ? color(0) : 'plain';
  const statistics = STATISTICS.map(([name, dash]) => ({ name, look: `${plain} ${dash}` }));
  const legend = [...(isAlone(results) ? [] : legendOf(results)), ...statistics];
  const y = { label: 'us (log)', scale: logScale(shown) };
  const description = `Latency over time: p50, p99 and max of each second, from ${extent(shown).map(decimal).join(' to ')} us`;
  return [chart('Latency over time', legend, (width) => plot(width, description, { ...time, y, lines }))];
}

function throughputOverTime(results) {
  const time = timeline(results);
  const wanted = results.map((result) => stair(time, result, 'plain dashed', 'intended', isRate, () => ''));
  const intended = wanted.filter(({ dots }) => dots.length).map((line) => ({ ...line, name: 'intended' }));
  const of = (second) => (isRate(second.intended) ? ` of ${decimal(second.intended)} intended` : '');
  const words = (result) => (second) => `${called(results, result, decimal(second.records))} records/s${of(second)}`;
  const got = results.map((result, index) => stair(time, result, color(index), 'records', isRate, words(result)));
  const shown = heights([...intended, ...got]);
  if (!shown.length) return [];
  // Above the dots of the intended rate lie those of what was got, which tell both.
  const lines = [...intended.map((line) => ({ ...line, dots: [] })), ...got];
  const y = { label: 'records/s', scale: linearScale(extent(shown)[1], 4, true) };
  const description = `Throughput over time, at most ${decimal(extent(heights(got))[1])} records/s`;
  const legend = [...legendOf(results), ...intended.slice(0, 1)];
  return [chart('Throughput over time', legend, (width) => plot(width, description, { ...time, y, lines }))];
}

// p50 and p99 against loads that differ, in the order of the results.
function acrossLoads(results) {
  const timed = results.filter(({ timings: [first] }) => isTime(first?.latency.p50_us) && isTime(first.latency.p99_us));
  const loads = distinct(timed.map(({ load }) => load));
  if (loads.length < 3) return [];
  const place = (load) => (loads.indexOf(load) + 0.5) / loads.length;
  const lines = distinct(timed.map(({ subject }) => subject)).flatMap((subject, index) => {
    const own = timed.filter((result) => result.subject === subject);
    const line = ([name, dash]) => loadLine(own, `${subject}, ${name}`, `${name}_us`, `${color(index)} ${dash}`, place);
    return STATISTICS.slice(0, 2).map(line);
  });
  const { common, parts } = differing(loads);
  const x = { label: common, ticks: loads.map((load, index) => [place(load), parts[index]]) };
  const y = { label: 'us (log)', scale: logScale(heights(lines)) };
  const description = `Latency against the load. ${lines.flatMap(({ dots }) => dots.map((dot) => dot.tip)).join('; ')}`;
  return [chart('Latency against the load', lines, (width) => plot(width, description, { x, y, lines }))];
}

function loadLine(results, name, field, look, place) {
  const us = ({ timings }) => timings[0].latency[field];
  const words = (result) => `${name}, ${result.load}: ${decimal(us(result))} us`;
  const dots = results.map((result) => ({ x: place(result.load), y: us(result), tip: words(result) }));
  return { name, look, segments: [dots], dots };
}

// The words that not all of the texts begin or end with, and the others around an ellipsis.
function differing(texts) {
  const all = texts.map((words) => words.split(' '));
  const isCommon = (place) => all.every((words) => words.at(place) === all[0].at(place));
  const least = Math.min(...all.map((words) => words.length)) - 1;
  let [head, tail] = [0, 0];
  while (head < least && isCommon(head)) head += 1;
  while (tail < least - head && isCommon(-1 - tail)) tail += 1;
  const common = [...all[0].slice(0, head), '…', ...all[0].slice(all[0].length - tail)].join(' ');
  return { common, parts: all.map((words) => words.slice(head, words.length - tail).join(' ')) };
}

// How far a figure is on the wrong side of its limit.
const STANDINGS = {
  good: 'at the limit or better, within 10 %',
  fair: 'within a factor of two',
  far: 'farther from it',
  even: 'no way is better',
};

function standing(better, ratio) {
  const loss = { higher: 1 / ratio, lower: ratio }[better];
  if (loss === undefined) return 'even';
  return loss <= 1.1 ? 'good' : loss <= 2 ? 'fair' : 'far';
}

function ratioText(ratio) {
  if (ratio >= 0.1) return ratio.toFixed(2);
  return ratio >= 0.001 ? decimal(Number(ratio.toPrecision(2))) : '<0.001';
}

function ratioBars(results) {
  const arrow = { higher: '↑', lower: '↓' };
  const compared = results.filter(({ figures }) => figures.some(({ limits }) => limits.length));
  const bars = compared.flatMap((result) => result.figures.flatMap(({ name, better, limits }) => limits.map(({ of, ratio }) => {
    const words = `${arrow[better] ?? ''} ${called(compared, result, name)}, of ${of}`;
    return { words: words.trim(), ratio, look: standing(better, ratio) };
  })));
  if (!bars.length) return [];
  const legend = Object.entries(STANDINGS).map(([look, name]) => ({ look, name, isFilled: true }));
  const shown = legend.filter(({ look }) => bars.some((bar) => bar.look === look));
  const caption = 'Ratios to limits (1.0 is the limit; ↑ more is better, ↓ less is better)';
  return [chart(caption, shown, (width) => drawBars(width, bars))];
}

function drawBars(width, bars) {
  const most = Math.min(3, Math.max(1.25, ...bars.map(({ ratio }) => ratio)));
  const full = width - 52;
  let y = 14;
  const rows = bars.map((bar) => {
    const lines = wrapped(bar.words, width / 6.6);
    const texts = lines.map((line, index) => label(0, y + 15 * (index + 1), 'tick', line));
    y += 15 * lines.length + 22;
    return svg('g', {}, texts, drawBar(bar, y - 18, full, most));
  });
  const description = `Ratios to limits. ${bars.map(({ words, ratio }) => `${words}: ${ratioText(ratio)}`).join('; ')}`;
  return picture(width, y, description, label(full / most, 10, 'tick middle', '1.0'), rows);
}

// A bar that is too long for the picture ends in an arrow.
function drawBar({ words, ratio, look }, top, full, most) {
  const end = Math.max(1, (Math.min(ratio, most) / most) * full);
  const point = ratio > most ? `H${end - 6}L${end} ${top + 5}L${end - 6} ${top + 10}` : `H${end}V${top + 10}`;
  const bar = path(look, `M0 ${top}${point}H0Z`, tip(`${words}: ${ratioText(ratio)}`));
  const limit = path('limit', `M${full / most} ${top}V${top + 13}`);
  return [path('track', `M0 ${top}H${full}V${top + 10}H0Z`), bar, limit, label(full + 8, top + 9, 'value', ratioText(ratio))];
}

function wrapped(words, length) {
  return words.split(' ').reduce((lines, word) => {
    const longer = `${lines.at(-1)} ${word}`.trim();
    return longer.length <= length ? [...lines.slice(0, -1), longer] : [...lines, word];
  }, ['']);
}

const STAGE_COLORS = 6;

const budgets = (results) => results.flatMap(budget);

function budget(result) {
  const all = result.budget.reduce((sum, { us }) => sum + us, 0);
  if (!(all > 0)) return [];
  const shares = result.budget.map(({ name: stage, us }, index) => {
    const percent = us / all < 0.001 ? '<0.1 %' : `${((us / all) * 100).toFixed(1)} %`;
    const look = `s${index % STAGE_COLORS}`;
    return { name: `${stage} ${decimal(us)} us, ${percent}`, stage, us, part: us / all, look, isFilled: true };
  });
  const caption = `Budget of one durable acknowledgement: ${decimal(all)} us in ${result.subject}, mean time of each stage`;
  return [chart(caption, shares, (width) => drawBudget(width, shares, caption))];
}

// A stage that has no room for its name is in the legend only.
function drawBudget(width, shares, caption) {
  let x = 0;
  const parts = shares.map(({ name, stage, us, part, look }) => {
    const [begin, size, texts] = [x, part * width, [stage, `${decimal(us)} us`]];
    x += size;
    const hasRoom = size > 10 + 7 * Math.max(...texts.map((words) => words.length));
    const box = svg('rect', { class: `share ${look}`, x: begin, width: size, height: 44 }, tip(name));
    const written = texts.map((words, line) => label(begin + size / 2, 18 + 17 * line, 'inside middle', words));
    return svg('g', {}, box, hasRoom ? written : []);
  });
  return picture(width, 46, `${caption}. ${shares.map(({ name }) => name).join('; ')}`, parts);
}
