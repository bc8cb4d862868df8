// The details of a point: error, curves, plots, configuration and log.

/** For each line of the configurations, the number of points whose configuration contains it. */
const lineCounts = new Map();
for (const point of data.points) {
  for (const line of new Set(point.config)) lineCounts.set(line, (lineCounts.get(line) || 0) + 1);
}
const configured = data.points.filter((point) => point.config.length).length;

function makeDetails(point, single = false) {
  return element("div", { class: "details" },
    !point.folder && !point.error && element("p", {}, "This point has not started."),
    !single && point.error && element("p", { class: "error" }, point.error),
    point.unread && element("p", { class: "error" }, point.unread),
    point.folder && element("p", { class: "path" }, element("code", {}, point.folder),
      point.overrides ? [" · ", element("code", {}, point.overrides)] : null),
    single ? null : ownCurves(point),
    plotsOf(point.plots),
    element("div", { class: "texts" }, configOf(point), logOf(point)));
}

/** Return the charts of loss and accuracy of one run. */
function ownCurves(point) {
  if (point.grid === undefined) return null;
  const charts = ["loss", "accuracy"].map((name) => {
    const columns = [`validation_${name}`, `train_${name}`].filter((column) => columnOf(point, column));
    if (!columns.length) return null;
    const entry = { colour: 0, dash: 0, ramp: null };
    const series = columns.map((column) => ({
      ...lineOf(point, column, "epoch"), entry, second: column.startsWith("train"),
    }));
    const svg = shape("svg", { class: "plot", role: "img", "aria-label": `${name} of ${point.name}` });
    drawPlot(svg, series, {
      width: 420, height: 230, xWhole: true, xLog: false, yLog: false, xLabel: "epochs", yLabel: name,
      xRange: extent(series, "x", false).range, yRange: extent(series, "y", false).range,
    });
    const of = columns.length > 1 ? ", solid: validation, dotted: training" : "";
    return element("figure", {}, svg, element("figcaption", {}, name + of));
  });
  return element("div", { class: "own" }, charts);
}

/** Return a row of plots; a click opens a plot in full size. The file of a linked plot may be missing. */
function plotsOf(plots) {
  if (!plots.length) return null;
  return element("div", { class: "gallery" }, plots.map(({ name, src, file }) => {
    const words = name.replaceAll("_", " ");
    const image = element("img", { src, alt: words, loading: "lazy" });
    const figure = element("figure", {},
      element("button", { type: "button", class: "plot-button", "aria-label": `enlarge ${words}`, onclick: () => enlarge(src, words) }, image),
      element("figcaption", {}, words));
    image.addEventListener("error", () => {
      figure.replaceChildren(element("p", { class: "gone" }, `${file} is missing. This page links to it: keep ` +
        "the file at the same place relative to the page."));
    });
    return figure;
  }));
}

function enlarge(src, words) {
  const dialog = element("dialog", { class: "large", onclose: () => dialog.remove() },
    element("form", { method: "dialog" }, element("button", { autofocus: true }, "close")),
    element("img", { src, alt: words }));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  document.body.append(dialog);
  dialog.showModal();
}

/** Return the lines of config.yaml; lines that differ between points are marked. */
function configOf(point) {
  if (!point.config.length) return null;
  const lines = point.config.map((line) => {
    const own = lineCounts.get(line) < configured;
    return element(own ? "mark" : "span", {}, `${data.lines[line]}\n`);
  });
  return element("section", {}, element("h4", {}, "config.yaml"),
    element("pre", { tabindex: "0" }, lines));
}

function logOf(point) {
  if (!point.log) return null;
  const title = point.log.startsWith("…") ? "end of run.log" : "run.log";
  const pre = element("pre", { tabindex: "0" }, point.log);
  requestAnimationFrame(() => { pre.scrollTop = pre.scrollHeight; });
  return element("section", {}, element("h4", {}, title), pre);
}
