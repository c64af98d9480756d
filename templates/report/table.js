// The table of all lines: sorted, filtered, and put on the page piece by piece.

const PIECE = 100;
const ALL = [
  { name: "name", label: "Model", cell: opener },
  { name: "status", label: "Status", cell: (number) => badge(lines.get(number, "status")) },
  { name: "value", label: "Performance", number: true, cell: performance },
  { name: "change", label: "Change", number: true, cell: change },
  { name: "trend", label: "Trend", wide: true, fixed: true, cell: sparkline },
  { name: "duration", label: "Duration", number: true, wide: true, cell: (number) => duration(lines.get(number, "duration")) },
  { name: "architecture", label: "GPU", wide: true },
  { name: "gpus", label: "Count", number: true, wide: true },
  { name: "launcher", label: "Launcher", wide: true },
];
const ALWAYS = ["name", "status", "value"];
const COLUMNS = ALL.filter((column) => ALWAYS.includes(column.name) || numbers().some((number) => told(number, column.name)));
const FILTERS = [["status", "Status"], ["verdict", "Verdict"], ["architecture", "GPU"], ["launcher", "Launcher"]];

const state = { words: [], chosen: {}, by: null, down: false, order: [], shown: 0, open: new Set() };
const haystacks = new Map();
const body = element("tbody");
const said = element("p", { class: "quiet", role: "status" });
const more = element("button", { type: "button", class: "more", onclick: () => put(PIECE * 5) }, "Show more");

function numbers() {
  return Array.from({ length: data.count[1] }, (_, number) => number);
}

// Whether a line has anything to show there.
function told(number, name) {
  if (name === "trend") return leading(number).trend.length > 4;
  const value = lines.get(number, name);
  return (value !== null && value !== "") || (name === "change" && !["", "pass"].includes(lines.get(number, "verdict")));
}

function opener(number) {
  const open = state.open.has(number);
  const press = (event) => toggle(number, event.currentTarget);
  return element("button", { type: "button", class: "opener", "aria-expanded": String(open), "aria-controls": `d${number}`, onclick: press }, lines.get(number, "name"));
}

function performance(number) {
  const value = lines.get(number, "value");
  return value === null ? "\u2013" : element("span", {}, quantity(value), " ", element("small", {}, lines.get(number, "unit")));
}

function change(number) {
  const verdict = lines.get(number, "verdict");
  return element("span", { class: "change" }, percent(lines.get(number, "change")), " ", verdict && verdict !== "pass" ? badge(verdict) : "");
}

function row(number) {
  const cells = COLUMNS.map((column, place) => {
    const kind = [column.number && "number", column.wide && "wide"].filter(Boolean).join(" ");
    const content = column.cell ? column.cell(number) : lines.get(number, column.name);
    return element(place ? "td" : "th", { class: kind || null, scope: place ? null : "row" }, content);
  });
  return element("tr", { id: `r${number}`, class: lines.get(number, "status").toLowerCase() }, ...cells);
}

function details(number) {
  return element("tr", { id: `d${number}`, class: "details" }, element("td", { colspan: COLUMNS.length }, section(number)));
}

function toggle(number, button) {
  const open = !state.open.has(number);
  if (open) state.open.add(number);
  else state.open.delete(number);
  button.setAttribute("aria-expanded", String(open));
  if (open) button.closest("tr").after(details(number));
  else document.getElementById(`d${number}`).remove();
}

function head() {
  const cells = COLUMNS.map((column) => {
    const kind = [column.number && "number", column.wide && "wide"].filter(Boolean).join(" ") || null;
    const content = column.fixed ? column.label : element("button", { type: "button", onclick: () => sort(column.name) }, column.label);
    return element("th", { scope: "col", class: kind, "data-column": column.fixed ? null : column.name }, content);
  });
  return element("thead", {}, element("tr", {}, ...cells));
}

// First the way that is asked for most, then the other, then the order in which the models ran.
function sort(name) {
  const down = COLUMNS.find((column) => column.name === name).number;
  if (state.by !== name) Object.assign(state, { by: name, down: Boolean(down) });
  else if (state.down === Boolean(down)) state.down = !state.down;
  else Object.assign(state, { by: null, down: false });
  for (const cell of document.querySelectorAll("th[data-column]")) {
    const way = state.down ? "descending" : "ascending";
    if (cell.dataset.column === state.by) cell.setAttribute("aria-sort", way);
    else cell.removeAttribute("aria-sort");
  }
  arrange();
}

const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

function arranged(chosen) {
  if (!state.by) return chosen;
  const numeric = COLUMNS.find((column) => column.name === state.by).number;
  const value = (number) => lines.get(number, state.by);
  const missing = (found) => found === null || found === "";
  const sign = state.down ? -1 : 1;
  return chosen.sort((a, b) => {
    const [one, other] = [value(a), value(b)];
    if (missing(one) || missing(other)) return missing(one) - missing(other);
    return sign * (numeric ? one - other : collator.compare(one, other));
  });
}

function haystack(number) {
  if (!haystacks.has(number)) {
    const item = lines.get(number, "item");
    const of = [items.get(item, "nodeid"), items.get(item, "reason"), items.get(item, "failure"), environments.get(item, "hosts")];
    const own = ["name", "status", "unit", "verdict", "architecture", "launcher"].map((name) => lines.get(number, name));
    haystacks.set(number, [...own, ...of, columns.get(number, "tags"), columns.get(number, "machine_name")].join("\n").toLowerCase());
  }
  return haystacks.get(number);
}

function matches(number) {
  const chosen = Object.entries(state.chosen).every(([name, value]) => lines.get(number, name) === value);
  return chosen && state.words.every((word) => haystack(number).includes(word));
}

function arrange() {
  state.order = arranged(numbers().filter(matches));
  state.shown = 0;
  body.replaceChildren();
  put(PIECE);
}

function put(count) {
  const piece = state.order.slice(state.shown, state.shown + count);
  body.append(...piece.flatMap((number) => (state.open.has(number) ? [row(number), details(number)] : [row(number)])));
  state.shown += piece.length;
  const [here, found, all] = [state.shown, state.order.length, data.count[1]].map((each) => grouped.format(each));
  const part = state.shown < state.order.length ? `the first ${here} of ` : "";
  said.textContent = `Showing ${part}${found} ${found === all ? "rows" : `of ${all} rows that match`}`;
  more.hidden = state.shown >= state.order.length;
}

function filters() {
  const search = element("input", { type: "search", id: "filter", placeholder: "model, tag, host, reason \u2026", autocomplete: "off", spellcheck: "false", oninput: () => narrow() });
  const choices = FILTERS.map(([name, label]) => choice(name, label)).filter(Boolean);
  const fields = [element("label", {}, "Find ", search), ...choices, element("button", { type: "reset" }, "Clear")];
  return element("form", { role: "search", class: "filters", onsubmit: (event) => event.preventDefault(), onreset: () => setTimeout(narrow) }, ...fields);
}

function choice(name, label) {
  const found = new Set();
  for (let number = 0; number < data.count[1]; number += 1) found.add(lines.get(number, name));
  const values = [...found].filter(Boolean).sort(collator.compare);
  if (values.length + found.has("") < 2) return null;
  const options = values.map((value) => element("option", { value }, value));
  return element("label", {}, `${label} `, element("select", { name, onchange: () => narrow() }, element("option", { value: "" }, "all"), ...options));
}

function narrow() {
  const form = document.querySelector(".filters");
  state.words = form.querySelector("#filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const chosen = [...form.querySelectorAll("select")].filter((each) => each.value).map((each) => [each.name, each.value]);
  state.chosen = Object.fromEntries(chosen);
  arrange();
}
