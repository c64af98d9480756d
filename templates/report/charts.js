// Charts, drawn by uPlot when they are first seen and again when the colours of the page change.

const drawn = new Set();
const INKS = ["--line", "--second", "--third", "--fourth"];

function ink(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function figure(title, words, options, values) {
  const holder = element("div", { class: "chart", role: "img", "aria-label": `${title}: ${words}` });
  const made = element("figure", {}, element("figcaption", {}, element("b", {}, title), " ", words), holder);
  const chart = { holder, plot: null, draw: () => draw(chart, options(), values) };
  new ResizeObserver(() => resize(chart)).observe(holder);
  return made;
}

function draw(chart, options, values) {
  if (chart.plot) chart.plot.destroy();
  const width = chart.holder.clientWidth;
  const axis = { stroke: ink("--quiet"), grid: { stroke: ink("--grid"), width: 1 }, ticks: { stroke: ink("--grid"), width: 1 } };
  const axes = (options.axes || [{}, {}]).map((each) => ({ ...axis, ...each }));
  const shared = { width, height: 190, cursor: { y: false }, padding: [10, 12, 0, 0], legend: { live: true } };
  chart.plot = new uPlot({ ...shared, ...options, axes }, values, chart.holder);
  drawn.add(chart);
}

function resize(chart) {
  const width = chart.holder.clientWidth;
  if (!width) return;
  if (!chart.plot) chart.draw();
  else if (chart.plot.width !== width) chart.plot.setSize({ width, height: 190 });
}

function redraw() {
  for (const chart of drawn) {
    if (chart.holder.isConnected) chart.draw();
    else drawn.delete(chart);
  }
}

for (const query of ["(prefers-color-scheme: dark)", "print"]) matchMedia(query).addEventListener("change", redraw);

const short = (_, ticks) => ticks.map((value) => (value === null ? "" : axisText(value)));

function axisText(value) {
  return Math.abs(value) >= 10000 ? Intl.NumberFormat("en", { notation: "compact" }).format(value) : String(Number(value.toPrecision(6)));
}

function dots(label, colour, width, size) {
  return { label, stroke: ink(colour), width, points: { show: size > 0, size, fill: ink(colour), stroke: ink(colour) }, value: shown };
}

function level(label, colour) {
  return { label, stroke: ink(colour), width: 1.5, dash: [6, 4], points: { show: false }, value: shown };
}

const shown = (_, value) => (value === null || value === undefined ? "\u2013" : quantity(value));

function flat(value, length) {
  return Array(length).fill(value);
}

// The bounds outside of which a comparison regresses, as lines: name, value.
function bounds(comparison) {
  if (!comparison || comparison.reference === null) return [];
  const found = [["reference", comparison.reference, "--quiet"]];
  const at = (part) => comparison.reference * (1 + part);
  if (comparison.lower !== null) found.push(["lower bound", at(comparison.lower), "--failure"]);
  if (comparison.upper !== null) found.push(["upper bound", at(comparison.upper), "--failure"]);
  return found;
}

// The space that values take, with some room and never of no height.
function room(_, low, high) {
  if (low === null) return [0, 1];
  const margin = Math.max((high - low) * 0.15, Math.abs(high) * 0.005, 1e-12);
  return [low - margin, high + margin];
}

function trendChart(metric) {
  const points = trendOf(metric);
  if (points.length < 2) return null;
  const timed = points.every((point, place) => point.run.time && (!place || point.run.time > points[place - 1].run.time));
  const at = points.map((point, place) => (timed ? point.run.time : place + 1));
  const own = points.map((point) => (metric.value !== null && point === points[points.length - 1] ? point.value : null));
  const lined = bounds(metric.comparison);
  const run = (_, __, ___, place) => (place === null || place === undefined ? "\u2013" : points[place].run.name);
  const first = { label: "run", value: run };
  const options = () => ({
    scales: { x: { time: timed }, y: { range: room } },
    axes: [timed ? {} : { values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? tick : "")) }, { values: short, size: 64 }],
    series: [first, dots(metric.unit || metric.name, "--line", 2, points.length < 80 ? 5 : 0), dots("this run", "--mark", 0, 10), ...lined.map(([label, , colour]) => level(label, colour))],
  });
  const values = [at, points.map((point) => point.value), own, ...lined.map(([, value]) => flat(value, at.length))];
  const all = points.map((point) => point.value);
  const unit = metric.unit && ` ${metric.unit}`;
  const words = `${points.length} runs, from ${quantity(Math.min(...all))} to ${quantity(Math.max(...all))}${unit}, median ${quantity(median(all))}`;
  return figure(`Trend of ${metric.name}`, words, options, values);
}

function repeatsChart(metric) {
  const samples = metric.samples.filter((value) => value !== null);
  if (samples.length < 2) return null;
  const middle = median(samples);
  const spread = middle ? (Math.max(...samples) - Math.min(...samples)) / Math.abs(middle) : 0;
  const at = samples.map((_, place) => place + 1);
  const options = () => ({
    scales: { x: { time: false, range: [0.5, samples.length + 0.5] }, y: { range: room } },
    axes: [{ values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? tick : "")) }, { values: short, size: 64 }],
    series: [{ label: "repeat" }, dots(metric.unit || metric.name, "--line", 0, 9), level("median", "--quiet")],
  });
  const words = `${samples.length} repeats, median ${quantity(middle)}${metric.unit && ` ${metric.unit}`}, spread ${(100 * spread).toFixed(1)} % of it`;
  return figure(`Repeats of ${metric.name}`, words, options, [at, samples, flat(middle, samples.length)]);
}

function usageChart(seen) {
  if (!seen.seconds || seen.seconds.length < 2) return null;
  const series = Object.entries(seen.series);
  const options = () => ({
    scales: { x: { time: false }, y: { range: room } },
    axes: [{ values: (_, ticks) => ticks.map(duration) }, { values: short, size: 64 }],
    series: [{ label: "time", value: (_, value) => (value === null ? "\u2013" : duration(value)) }, ...series.map(([label], place) => dots(label, INKS[place % INKS.length], 1.5, 0))],
  });
  return figure(seen.name, usageWords(seen), options, [seen.seconds, ...series.map(([, values]) => values)]);
}

function usageWords(seen) {
  return `mean ${quantity(seen.mean)} ${seen.unit}, from ${quantity(seen.minimum)} to ${quantity(seen.maximum)} ${seen.unit}`;
}

// A trend as small as a word.
function sparkline(number) {
  const points = trendOf(leading(number)).slice(-40);
  if (points.length < 3) return "";
  const values = points.map((point) => point.value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const place = (value, index) => [2 + (index / (values.length - 1)) * 76, high === low ? 10 : 18 - ((value - low) / (high - low)) * 16];
  const path = values.map((value, index) => place(value, index).map((part) => part.toFixed(1)).join(",")).join(" ");
  const [x, y] = place(values[values.length - 1], values.length - 1);
  const own = leading(number).value === null ? "" : element("circle", { cx: x, cy: y, r: 2.2 });
  const label = `${points.length} runs, from ${quantity(low)} to ${quantity(high)}`;
  return element("svg", { class: "spark", viewBox: "0 0 80 20", role: "img", "aria-label": label }, element("polyline", { points: path }), own);
}
