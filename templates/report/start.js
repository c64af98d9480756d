// Puts the table on the page, and follows links to a line.

const PRINTED = { rows: 1000, sections: 30 };

function follow() {
  const named = /^#r(\d+)$/.exec(location.hash);
  if (!named || Number(named[1]) >= data.count[1]) return;
  const number = Number(named[1]);
  if (!document.getElementById(`r${number}`)) bring(number);
  const line = document.getElementById(`r${number}`);
  const button = line.querySelector(".opener");
  if (!state.open.has(number)) toggle(number, button);
  line.scrollIntoView();
  button.focus({ preventScroll: true });
}

// Let a line be on the page: without filters, and as far down as it stands.
function bring(number) {
  if (!state.order.includes(number)) {
    document.querySelector(".filters").reset();
    narrow();
  }
  put(Math.max(0, state.order.indexOf(number) + 1 - state.shown));
}

// On paper nothing can be opened: the sections of what needs attention are printed, and more rows.
function prepare() {
  put(Math.max(0, PRINTED.rows - state.shown));
  const failed = state.order.filter((number) => lines.get(number, "status") === "FAILURE" || lines.get(number, "verdict") === "regression");
  for (const number of failed.slice(0, PRINTED.sections)) {
    const line = document.getElementById(`r${number}`);
    if (line && !state.open.has(number)) toggle(number, line.querySelector(".opener"));
  }
}

function start() {
  const caption = element("caption", { class: "hidden" }, "Results of all models; headers sort, names open details");
  const results = element("table", { class: "results" }, caption, head(), body);
  document.getElementById("table").append(filters(), said, results, more);
  arrange();
  new IntersectionObserver((seen) => seen.some((each) => each.isIntersecting) && put(PIECE), { rootMargin: "400px" }).observe(more);
  follow();
}

addEventListener("hashchange", follow);
addEventListener("beforeprint", prepare);
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.target.closest("input, select, textarea")) return;
  event.preventDefault();
  document.getElementById("filter").focus();
});
start();
