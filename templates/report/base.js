// The page's data, and the few things that all parts share.

const data = JSON.parse(document.getElementById("data").textContent);
const items = reader(data.items);
const lines = reader(data.lines);
const environments = reader(data.environments);
const columns = reader(data.columns);
const metrics = Array.from({ length: data.count[1] }, () => []);
const runs = data.runs.map(([name, when]) => ({ name, time: Date.parse(when) / 1000 }));

// Records that stand column by column: `get(number, name)` gives one value, `all(number)` a record.
function reader(packed) {
  const values = new Map();
  for (const [name, column] of Object.entries(packed)) {
    if (column.v) values.set(name, (number) => column.v[number]);
    else if (column.i) values.set(name, (number) => column.d[column.i[number]]);
    else values.set(name, () => column.d[0]);
  }
  const get = (number, name) => (values.has(name) ? values.get(name)(number) : null);
  const all = (number) => [...values].map(([name, of]) => [name, of(number)]).filter(([, value]) => value);
  return { get, all };
}

// An element; text is never read as markup.
function element(tag, attributes = {}, ...children) {
  const svg = tag === "svg" || tag === "polyline" || tag === "circle";
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

// A number with four digits that count, or more where it is large.
function quantity(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size >= 1e15 || (size < 1e-4 && size > 0)) return value.toExponential(3);
  if (size >= 1000) return grouped.format(value);
  return String(Number(value.toPrecision(4)));
}

function percent(change) {
  if (change === null || change === undefined) return "";
  const text = (100 * change).toFixed(1);
  return `${change >= 0 ? "+" : "\u2212"}${text.replace("-", "")} %`;
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "";
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${String(Math.floor(seconds % 60)).padStart(2, "0")} s`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, "0")} min`;
}

function moment(text) {
  const date = new Date(text);
  return Number.isNaN(date.getTime()) ? text : `${date.toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

function badge(kind, text = kind) {
  return kind ? element("span", { class: `badge ${kind.replace("no verdict", "none").toLowerCase()}` }, text.toLowerCase()) : "";
}

function link(href) {
  return element("a", { href }, nameOf(href));
}

// The file's name at the end of a URL.
function nameOf(href) {
  const name = href.slice(href.lastIndexOf("/") + 1);
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

// What a line's metric was in each run up to this one.
function trendOf(metric) {
  const points = [];
  for (let place = 0; place < metric.trend.length; place += 2) {
    points.push({ run: runs[metric.trend[place]], value: metric.trend[place + 1] });
  }
  return points;
}

function leading(number) {
  return metrics[number].find((metric) => metric.name === "performance") || metrics[number][0];
}

// Metrics stand one after the other, each with the number of its line.
function sortMetrics() {
  const of = reader(data.metrics);
  const names = Object.keys(data.metrics);
  for (let place = 0; place < data.count[2]; place += 1) {
    const metric = Object.fromEntries(names.map((name) => [name, of.get(place, name)]));
    metrics[metric.line].push(metric);
  }
}

sortMetrics();
