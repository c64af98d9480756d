// What there is to tell of one line: the section that opens below it.

function section(number) {
  const item = lines.get(number, "item");
  const of = (name) => items.get(item, name);
  const parts = [
    heading(number, of),
    reasons(of),
    ...metricParts(number),
    usageParts(of("usage")),
    attempts(of),
    tail(of),
    environment(item, of("baseline")),
    files(of),
    table("All columns of perf.csv", columns.all(number)),
  ];
  return element("section", { "aria-label": lines.get(number, "name") }, ...parts);
}

function heading(number, of) {
  const facts = [
    ["node id", of("nodeid")],
    ["started", of("started") && moment(of("started"))],
    ["ran for", duration(lines.get(number, "duration"))],
    ["architecture", lines.get(number, "architecture")],
    ["GPUs", lines.get(number, "gpus")],
    ["launcher", lines.get(number, "launcher")],
    ["attempt", of("attempt") > 1 && of("attempt")],
    ["card", of("source")],
  ];
  const told = facts.filter(([, value]) => value);
  return element("dl", { class: "facts" }, ...told.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

function reasons(of) {
  const words = [of("reason"), ...of("notes")].filter(Boolean);
  return words.length ? element("div", { class: "reason" }, ...words.map((text) => element("p", {}, text))) : null;
}

function metricParts(number) {
  const own = metrics[number];
  const charts = own.flatMap((metric) => [trendChart(metric), repeatsChart(metric)]).filter(Boolean);
  const measured = own.filter((metric) => metric.value !== null || metric.comparison);
  return [
    measured.length ? metricTable(measured) : null,
    charts.length ? element("div", { class: "charts" }, ...charts.slice(0, 8)) : null,
    charts.length > 8 ? element("p", { class: "quiet" }, `${charts.length - 8} further charts are not drawn.`) : null,
  ];
}

function metricTable(measured) {
  const judged = measured.some((metric) => metric.comparison);
  const names = ["Metric", "Value", "Better", ...(judged ? ["Reference", "Change", "Verdict", "Why"] : [])];
  const head = element("thead", {}, element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name))));
  const rows = measured.map((metric) => element("tr", {}, ...metricCells(metric, judged)));
  return scrolled(element("table", { class: "plain" }, element("caption", {}, "What was measured"), head, element("tbody", {}, ...rows)));
}

function metricCells(metric, judged) {
  const own = [
    element("th", { scope: "row" }, metric.name),
    element("td", { class: "number" }, `${quantity(metric.value) || "\u2013"} ${metric.unit}`),
    element("td", {}, metric.direction),
  ];
  return judged ? [...own, ...verdictCells(metric.comparison)] : own;
}

function verdictCells(found) {
  if (!found) return [element("td", { colspan: 4, class: "quiet" }, "not compared")];
  const why = [found.reason, found.source && `reference: ${found.source}`, found.gates ? "" : "only watched"];
  return [
    element("td", { class: "number" }, quantity(found.reference) || "\u2013"),
    element("td", { class: "number" }, percent(found.change) || "\u2013"),
    element("td", {}, badge(found.verdict)),
    element("td", {}, why.filter(Boolean).join("; ")),
  ];
}

function usageParts(usage) {
  if (!usage.length) return null;
  const charts = usage.map(usageChart).filter(Boolean);
  const plain = usage.filter((seen) => !seen.seconds).map((seen) => [seen.name, usageWords(seen)]);
  return element("div", {}, table("Usage", plain, true), charts.length ? element("div", { class: "charts" }, ...charts) : null);
}

function attempts(of) {
  const earlier = of("earlier");
  if (!earlier.length) return null;
  const told = earlier.map((each) => {
    const kind = each.failure ? `${each.status.toLowerCase()} (${each.failure})` : each.status;
    return element("li", {}, badge(each.status, kind), " ", each.reason, " ", each.log ? link(each.log) : "");
  });
  const last = element("li", {}, badge(of("status")), " ", of("reason") || "the one that counts");
  return fold(`Attempts (${earlier.length + 1})`, element("ol", {}, ...told, last), true);
}

function tail(of) {
  const kept = of("tail");
  return kept.length ? fold("End of the log", element("pre", { tabindex: 0 }, kept.join("\n")), of("status") === "FAILURE") : null;
}

function environment(item, baseline) {
  return element("div", {}, baseline ? changes(baseline) : null, table("Environment", environments.all(item)));
}

function changes(baseline) {
  const since = `run ${baseline.run}${baseline.when ? ` of ${moment(baseline.when)}` : ""}`;
  if (!baseline.differences.length) return element("p", { class: "quiet" }, `The environment is that of ${since}.`);
  const head = element("thead", {}, element("tr", {}, ...["What", "Then", "Now"].map((name) => element("th", { scope: "col" }, name))));
  const rows = baseline.differences.map(([name, then, now]) =>
    element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, then || "\u2013"), element("td", {}, now || "\u2013")));
  const made = element("table", { class: "plain" }, element("caption", {}, `Changed since ${since}`), head, element("tbody", {}, ...rows));
  return fold(`Different from ${since} (${rows.length})`, scrolled(made), true);
}

function files(of) {
  const found = [of("log"), ...of("artifacts"), ...of("usage").map((seen) => seen.file)].filter(Boolean);
  const told = found.map((each) => element("li", {}, link(each)));
  if (of("more_artifacts")) told.push(element("li", { class: "quiet" }, `${of("more_artifacts")} more beside the log`));
  return told.length ? fold(`Log and artifacts (${found.length + of("more_artifacts")})`, element("ul", { class: "files" }, ...told), told.length < 6) : null;
}

function table(title, pairs, open = false) {
  if (!pairs.length) return null;
  const rows = pairs.map(([name, value]) => element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, value)));
  return fold(title, scrolled(element("table", { class: "plain pairs" }, element("caption", { class: "hidden" }, title), element("tbody", {}, ...rows))), open);
}

function fold(title, content, open) {
  return element("details", { open }, element("summary", {}, title), content);
}

// Wide tables scroll by themselves, not the page; with the keyboard too.
function scrolled(content) {
  return element("div", { class: "scrolled", tabindex: 0 }, content);
}
