// The page: head, comparison, plots of the sweep, curves and points.

const FIRST_METRICS = [
  ...data.metrics, "test_accuracy", "test_loss", "best_validation_accuracy", "best_epoch", "epochs",
  "train_seconds",
];
const STATUSES = ["done", "running", "pending", "failed", "diverged", "timeout", "interrupted", "pruned", "damaged"];

data.points.forEach((point, i) => { point.index = i; });

const main = element("main");
const view = { scope: null, table: null, filters: [], query: "", shown: [], extra: null };
const chartRoot = element("div", { class: "chart" });
const chart = makeChart(chartRoot);

function section(id, title, ...children) {
  return element("section", { id, class: "card" }, element("h2", {}, title), children);
}

function openScope(scope) {
  const points = scope.points.map((i) => data.points[i]);
  Object.assign(view, { scope, points, query: "", extra: null });
  const single = points.length === 1;
  main.replaceChildren(
    makeHead(scope, points),
    ...(single ? [makeOutcome(points[0])] : [makeComparison(scope)]),
    section("curves", "Curves", chartRoot),
    ...(scope.plots.length ? [section("plots", "Plots of the sweep", plotsOf(scope.plots))] : []),
    single ? section("point", "The run", makeDetails(points[0], true)) : makePoints(scope, points),
    makeFoot(),
  );
  chart.show(scope, points);
}

// head -----------------------------------------------------------------------------------------

function makeHead(scope, points) {
  const several = data.scopes.length > 1;
  const counts = STATUSES.concat(...points.map((point) => point.status));
  const statuses = [...new Set(counts)]
    .map((status) => [status, points.filter((point) => point.status === status).length])
    .filter(([, count]) => count);
  return element("header", {},
    element("h1", {}, data.title),
    element("p", { class: "path" }, element("code", {}, data.folder)),
    several && choice("Show", data.scopes.map((other, i) => [
      String(i), `${other.name} (${plural(other.points.length, "point")})`,
    ]), String(data.scopes.indexOf(scope)), (i) => {
      openScope(data.scopes[i]);
      main.querySelector("header select").focus();
    }),
    element("p", { class: "chips" }, statuses.map(([status, count]) => (points.length === 1
      ? badge(status)
      : button([badge(status), ` ${count}`], () => onlyStatus(status), {
        title: `show only the points with status ${status}`,
      })))),
    points.filter((point) => point.error && points.length === 1)
      .map((point) => element("p", { class: "error" }, point.error)),
    element("dl", { class: "about" }, scope.about.map(([label, lines]) => [
      element("dt", {}, label),
      element("dd", {}, lines.map((line) => element("div", {}, line))),
    ])));
}

function badge(status) {
  return element("span", { class: `status ${status}` }, status);
}

function makeFoot() {
  const { embedded, linked } = data.plots;
  const parts = [`Made ${data.made} by nnopt ${data.version}.`];
  if (embedded) parts.push(`${plural(embedded, "plot")} of runs and sweeps ${embedded === 1 ? "is" : "are"} embedded in this page.`);
  if (linked) {
    parts.push(`${plural(linked, "plot")} would make the page too large and are linked: keep their files ` +
      "at the same place relative to the page.");
  }
  if (data.thinned > 1) {
    parts.push(`Curves of long runs contain the first epoch, the last, and at least one of every ` +
      `${data.thinned} epochs between them; metrics.csv contains all epochs.`);
  }
  return element("footer", {}, parts.join(" "));
}

// outcomes -------------------------------------------------------------------------------------

function makeOutcome(point) {
  const names = [...new Set([...FIRST_METRICS, ...Object.keys(data.better)])]
    .filter((name) => name in point.metrics);
  if (!names.length) return section("outcome", "Results", element("p", {}, "No results yet."));
  return section("outcome", "Results", element("dl", { class: "tiles" }, names.map((name) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, metricText(name, point.metrics[name]))))));
}

function makeComparison(scope) {
  const table = scope.comparison;
  if (!table) return section("comparison", "Comparison", element("p", {}, scope.why));
  const metricAt = data.metrics.map((name, i) => table.header.length
    - (table.header.at(-1) === "left out") - 3 * (data.metrics.length - i) + 1);
  const columns = table.header.map((title, i) => ({
    title,
    numeric: table.align[i] === "r",
    descends: metricAt.includes(i) && data.better[data.metrics[metricAt.indexOf(i)]] === "higher",
    value: (row) => (table.values[row.at] ?? [])[i],
    cell: (row) => {
      const best = table.best[row.at].includes(i);
      return best ? element("strong", { title: "the best mean" }, table.rows[row.at][i]) : table.rows[row.at][i];
    },
  }));
  data.metrics.forEach((metric, i) => columns.push(stripColumn(table, i, metric)));
  const rows = table.rows.map((_, at) => ({ at }));
  const drawn = makeTable(columns, { caption: table.title, key: "comparison" });
  drawn.draw(rows);
  return section("comparison", "Comparison",
    element("p", { class: "caption" }, `${table.title}; best mean in bold.`),
    element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "comparison" }, drawn.node),
    table.notes.map((note) => element("p", { class: "caption" }, note)));
}

/** Return a column that draws seeds as dots, their mean and its interval, on the same axis in all rows. */
function stripColumn(table, metricIndex, metric) {
  const numbers = table.seeds.flatMap((row) => row[metricIndex].values.map(([, value]) => value));
  const finite = numbers.filter((value) => value !== null);
  const [low, high] = [Math.min(...finite), Math.max(...finite)];
  const to = scale(low < high ? [low, high] : [low - 1, high + 1], [10, 330], false);
  const clamp = (value) => Math.min(338, Math.max(2, to(value)));
  return {
    title: data.metrics.length > 1 ? `seeds, ${metric}` : `seeds, ${text(low)} to ${text(high)}`,
    value: null,
    shown: true,
    cell: ({ at }) => {
      const { mean, interval, values } = table.seeds[at][metricIndex];
      const dots = values.filter(([, value]) => value !== null);
      const words = dots.map(([seed, value]) => `seed ${seed}: ${text(value)}`).join(", ");
      return shape("svg", { class: "strip", viewBox: "0 0 340 22", role: "img", "aria-label": words },
        shape("title", {}, words),
        interval && shape("line", { class: "interval", x1: clamp(interval[0]), x2: clamp(interval[1]), y1: 11, y2: 11 }),
        dots.map(([, value]) => shape("circle", { cx: to(value), cy: 11, r: 3.2 })),
        mean === null ? null : shape("line", { class: "mean", x1: to(mean), x2: to(mean), y1: 3, y2: 19 }));
    },
  };
}

// points ---------------------------------------------------------------------------------------

function makePoints(scope, points) {
  const columns = pointColumns(scope, points);
  const filters = columns.map((column) => (column.value && column.title !== "#"
    ? makeFilter(column, points, refilter)
    : { node: null, holds: () => true, clear: () => {} }));
  const row = element("tr", { class: "filters" }, filters.map(({ node }) => element("td", {}, node)));
  const table = makeTable(columns, {
    caption: "every point", filters: row, key: `${data.scopes.indexOf(scope)} ${columns.map((c) => c.title)}`,
  });
  const search = element("input", {
    type: "search", placeholder: "any words: adam 0.01 failed", "aria-label": "filter points by text",
    value: view.query, oninput: refilter,
  });
  const count = element("span", { class: "count", role: "status" });
  const clear = button("show all", () => {
    for (const filter of filters) filter.clear();
    search.value = "";
    refilter();
  });
  Object.assign(view, { table, filters, columns, search, count, clear });
  const node = section("points", "Points",
    element("div", { class: "controls" }, element("label", {}, element("span", {}, "Filter"), search),
      metricChooser(scope, points), count, clear),
    element("div", { class: "scroll tall", tabindex: "0", role: "region", "aria-label": "points" }, table.node));
  table.draw(points);
  showCount(points, points);
  return node;
}

function pointColumns(scope, points) {
  const metrics = Object.keys(data.better).filter((name) => points.some((p) => name in p.metrics));
  const first = new Set(view.extra || FIRST_METRICS);
  const has = (test) => points.some(test);
  return [
    { title: "open", value: null, cell: opener },
    has((p) => p.number !== null) && {
      title: "#", numeric: true, value: (p) => p.number ?? p.index + 1, cell: (p) => String(p.number ?? p.index + 1),
    },
    { title: "status", value: (p) => p.status, cell: (p) => badge(p.status) },
    points.some((p) => p.sweep !== points[0].sweep) && {
      title: "sweep", value: (p) => p.sweep ?? "–", cell: (p) => shorten(p.sweep ?? "–"),
    },
    scope.keys.length === 0 && { title: "name", value: (p) => p.name, cell: (p) => p.name },
    ...scope.keys.map((key) => ({ title: key, value: (p) => valueOf(p, key), cell: (p) => shorten(valueOf(p, key)) })),
    has((p) => p.seed !== null) && {
      title: "seed", numeric: true, value: (p) => p.seed, cell: (p) => (p.seed === null ? "–" : String(p.seed)),
    },
    ...metrics.filter((name) => first.has(name)).map((name) => ({
      title: scope.keys.includes(name) ? `${name}_done` : name, numeric: true, measured: true,
      descends: data.better[name] === "higher", value: (p) => p.metrics[name], cell: (p) => metricText(name, p.metrics[name]),
    })),
    has((p) => p.error) && {
      title: "error", value: (p) => p.error, measured: true,
      cell: (p) => element("span", { class: "short", title: p.error }, p.error || ""),
    },
  ].filter(Boolean);
}

function shorten(value) {
  if (brief(value) !== value) return element("span", { title: value }, brief(value));
  return value.length > 32 ? element("span", { title: value }, `${value.slice(0, 31)}…`) : value;
}

function opener(point) {
  const node = button("", () => {
    const open = node.getAttribute("aria-expanded") !== "true";
    node.setAttribute("aria-expanded", String(open));
    const row = node.closest("tr");
    const rows = [...point.nodes.values()].find((list) => list[0] === row);
    if (open && rows.length === 1) {
      rows.push(element("tr", { class: "opened" },
        element("td", { colspan: row.children.length }, makeDetails(point))));
    }
    if (open) row.after(rows[1]);
    else rows.pop().remove();
  }, { class: "open", "aria-expanded": "false", "aria-label": `details of ${point.name}`, title: point.name });
  return node;
}

/** Return the check boxes that select which metrics have a column. */
function metricChooser(scope, points) {
  const names = Object.keys(data.better).filter((name) => points.some((p) => name in p.metrics));
  const chosen = new Set(view.extra || FIRST_METRICS);
  if (!names.length) return null;
  return element("details", { class: "chooser" }, element("summary", {}, "columns"),
    element("div", {}, names.map((name) => tick(name, chosen.has(name), (on) => {
      if (on) chosen.add(name);
      else chosen.delete(name);
      view.extra = [...chosen];
      view.query = view.search.value;
      main.querySelector("#points").replaceWith(makePoints(scope, points));
      main.querySelector("#points .chooser").open = true;
      refilter();
    }))));
}

/** Return the lower-case text that the filter searches. */
function wordsOf(point, scope) {
  if (!point.words) {
    const keys = scope.keys.map((key) => `${key}=${valueOf(point, key)}`);
    point.words = [point.name, point.status, point.error || "", `seed=${point.seed}`, ...keys]
      .join(" ").toLowerCase();
  }
  return point.words;
}

function refilter() {
  const words = view.search.value.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = view.points.filter((point) =>
    words.every((word) => wordsOf(point, view.scope).includes(word))
    && view.filters.every((filter) => filter.holds(point)));
  view.table.draw(shown);
  showCount(shown, view.points);
  chart.show(view.scope, shown);
}

function showCount(shown, points) {
  view.count.textContent = shown.length === points.length
    ? plural(points.length, "point")
    : `${shown.length} of ${plural(points.length, "point")}, in the curves too`;
  view.clear.hidden = shown.length === points.length;
}

function onlyStatus(status) {
  view.filters[view.columns.findIndex((column) => column.title === "status")].choose?.(status);
  refilter();
  document.getElementById("points").scrollIntoView({ behavior: "smooth" });
}

document.body.append(main);
openScope(data.scopes[0]);
// Two frames later, the page is painted and the mark "painted" is set. benchmarks/report.py waits for it.
requestAnimationFrame(() => requestAnimationFrame(() => {
  performance.mark("painted");
  document.documentElement.dataset.painted = performance.now().toFixed(0);
}));
