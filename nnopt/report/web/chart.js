// The chart of curves: controls, legend, zoom, pan, and the values under the cursor.

const MAX_TIP_LINES = 10; // number of lines whose values are shown under the cursor
const MIN_DRAG = 8; // pixels; a shorter drag is a click

/** Return a chart, whose method show(scope, points) draws the curves of these points. */
function makeChart(root) {
  const state = {
    scope: null, points: [], metric: "", axis: "epoch", lines: "mean", colour: "setting",
    xLog: false, yLog: false, xRange: null, yRange: null, panning: false, hidden: new Set(),
  };
  const svg = shape("svg", {
    class: "plot", tabindex: "0", role: "application", "aria-label": "curves",
    "aria-describedby": "chart-help",
  });
  const tip = element("div", { class: "tip", hidden: true });
  const cursor = element("div", { class: "cursor", hidden: true });
  const frame = element("div", { class: "frame" }, svg, cursor, tip);
  const controls = element("div", { class: "controls" });
  const legend = element("div", { class: "legend" });
  const caption = element("p", { class: "caption" });
  const spoken = element("p", { class: "unseen", "aria-live": "polite" });
  const help = element(
    "p", { class: "help", id: "chart-help" },
    "Drag to zoom, Shift and drag to move, double-click to reset. With the keyboard: arrows " +
    "move the cursor, + and − zoom, Shift and an arrow moves, 0 resets.",
  );
  root.replaceChildren(
    controls, element("div", { class: "chart-row" }, frame, legend), caption, help, spoken,
  );
  let [series, entries, scales, cursorX] = [[], [], null, null];

  function show(scope, points) {
    const fresh = scope !== state.scope;
    Object.assign(state, { scope, points: points.filter((point) => point.grid !== undefined) });
    if (fresh) choose();
    rebuild();
  }

  /** Select a metric and, if there are many settings, the key that determines the colours. */
  function choose() {
    const metrics = metricsOf(state.points).map(([value]) => value);
    const preferred = state.scope.points.length === 1
      ? ["validation_loss+train_loss", "train_loss"]
      : ["validation_accuracy", "train_loss"];
    state.metric = metrics.includes(state.metric)
      ? state.metric
      : preferred.find((value) => metrics.includes(value)) || metrics[0] || "";
    const { entries: settings } = legendOf(state.points, state.scope, "setting");
    const few = state.scope.keys.find((key) => {
      const values = new Set(state.points.map((point) => valueOf(point, key)));
      return values.size > 1 && values.size <= 12;
    });
    state.colour = settings.size > 12 && few ? few : "setting";
    Object.assign(state, { lines: "mean", hidden: new Set(), xRange: null, yRange: null });
  }

  function set(change) {
    Object.assign(state, change);
    rebuild();
  }

  function rebuild() {
    const { scope, points } = state;
    frame.hidden = legend.hidden = help.hidden = !points.length;
    if (!points.length) {
      controls.replaceChildren();
      caption.textContent = "No point has finished an epoch.";
      return;
    }
    ({ series, entries } = seriesOf(points, state));
    drawControls(scope);
    drawLegend(scope);
    draw();
  }

  // controls ----------------------------------------------------------------------------------

  function drawControls(scope) {
    const focused = controls.contains(document.activeElement)
      ? [...controls.querySelectorAll("select, input, button")].indexOf(document.activeElement)
      : -1;
    const several = state.points.length > 1;
    const repeated = several && new Set(
      state.points.map((point) => settingOf(point, scope).join("\n")),
    ).size < state.points.length;
    const colours = [["setting", "setting"], ...scope.keys.map((key) => [key, key])];
    const unzoomed = { xRange: null, yRange: null };
    controls.replaceChildren(...[
      choice("Metric", metricsOf(state.points), state.metric, (metric) => set({ metric, yRange: null })),
      choice("Against", AXES, state.axis, (axis) => set({ axis, xRange: null })),
      repeated && choice(
        "Lines", [["mean", "mean over seeds"], ["runs", "every run"]], state.lines,
        (lines) => set({ lines }),
      ),
      scope.keys.length > 1 && choice(
        "Colour", colours, state.colour, (colour) => set({ colour, hidden: new Set() }),
      ),
      tick("log x", state.xLog, (xLog) => set({ xLog, xRange: null })),
      tick("log y", state.yLog, (yLog) => set({ yLog, yRange: null })),
      element(
        "span", { class: "buttons", role: "group", "aria-label": "zoom" },
        button("pan", () => set({ panning: !state.panning }), {
          "aria-pressed": String(state.panning), title: "when pressed, dragging moves instead of zooming",
        }),
        button("−", () => zoom(2), { "aria-label": "zoom out", title: "zoom out" }),
        button("+", () => zoom(0.5), { "aria-label": "zoom in", title: "zoom in" }),
        button("reset", () => set(unzoomed), { disabled: !state.xRange && !state.yRange }),
      ),
    ].filter(Boolean));
    if (focused >= 0) controls.querySelectorAll("select, input, button")[focused]?.focus();
  }

  function drawLegend(scope) {
    const all = (hidden) => () => set({ hidden: new Set(hidden ? entries.map((e) => e.label) : []) });
    const title = state.colour === "setting" ? scope.keys.join(" · ") : state.colour;
    legend.hidden = entries.length < 2;
    const focused = document.activeElement?.dataset?.label;
    legend.replaceChildren(
      element("div", { class: "legend-head" }, element("span", {}, title),
        button("all", all(false)), button("none", all(true))),
      element("div", { class: "entries" }, entries.map((entry) => {
        const key = paint(shape("svg", { viewBox: "0 0 26 10", class: "key", "aria-hidden": "true" },
          shape("line", { class: "line", x1: 0, x2: 26, y1: 5, y2: 5 })), entry);
        const toggle = (event) => {
          const others = entries.filter((other) => other !== entry).map((other) => other.label);
          if (event.shiftKey) return set({ hidden: new Set(others) });
          const hidden = new Set(state.hidden);
          if (!hidden.delete(entry.label)) hidden.add(entry.label);
          return set({ hidden });
        };
        return button([key, element("span", {}, entry.values.map(brief).join(" · ") || entry.label)], toggle, {
          "aria-pressed": String(!state.hidden.has(entry.label)), "data-label": entry.label,
          title: "show or hide; with Shift: show only this one",
          onpointerenter: () => mark(entry), onpointerleave: () => mark(null),
        });
      })),
    );
    [...legend.querySelectorAll("[data-label]")]
      .find((node) => focused !== undefined && node.dataset.label === focused)?.focus();
  }

  /** Fade all lines except those of a legend entry. */
  function mark(entry) {
    for (const line of series) line.faint = entry !== null && line.entry !== entry;
    draw();
  }

  // drawing -----------------------------------------------------------------------------------

  const visible = () => series.filter((line) => !state.hidden.has(line.entry.label));

  function draw() {
    const width = Math.max(280, Math.round(frame.clientWidth || 640));
    const height = Math.round(Math.min(440, Math.max(260, width * 0.56)));
    const lines = visible();
    const x = extent(lines, "x", state.xLog);
    const xRange = state.xRange || x.range;
    const y = extent(lines, "y", state.yLog, xRange);
    const [column] = state.metric.split("+");
    const unit = /loss/.test(column) ? " (mean per sample)" : "";
    const paired = state.metric.includes("+") ? column.replace(/^validation_/, "") : column;
    scales = drawPlot(svg, lines, {
      width, height, xRange, yRange: state.yRange || y.range, xLog: state.xLog, yLog: state.yLog,
      xWhole: state.axis !== "seconds",
      xLabel: AXES.find(([name]) => name === state.axis)[1], yLabel: words(paired) + unit,
    });
    caption.textContent = describe(lines, state.yRange ? 0 : y.above);
    cursor.hidden = tip.hidden = true;
  }

  function describe(lines, above) {
    const of = state.scope.points.length;
    const parts = [];
    if (state.points.length < of) parts.push(`${state.points.length} of ${of} points`);
    if (state.metric.includes("+")) parts.push("solid: validation, dotted: training");
    if (lines.some((line) => line.low)) {
      parts.push("lines: means over seeds; bands: ± one standard deviation");
    }
    if (data.thinned > 1) parts.push(`long runs: at least one of ${data.thinned} epochs is drawn`);
    const hasNonPositive = state.yLog && lines.some((line) => line.y.some((value) => value !== null && value <= 0));
    if (hasNonPositive) parts.push("a logarithmic scale cannot show values of 0 or below");
    if (above) parts.push(`${plural(above, "value")} above the frame: zoom out, or take log y`);
    return parts.length ? `${parts.join(" · ")}.` : "";
  }

  // zoom and pan ------------------------------------------------------------------------------

  /** Return the values [low, high] of the scale `to` at the pixels a and b. */
  const between = (to, a, b) => [to.from(a), to.from(b)].sort((one, other) => one - other);

  function zoom(factor) {
    const { x, y, box } = scales;
    const grow = (start, length) => [start + (length * (1 - factor)) / 2, start + (length * (1 + factor)) / 2];
    set({
      xRange: between(x, ...grow(box.x, box.width)), yRange: between(y, ...grow(box.y, box.height)),
    });
  }

  function pan(dx, dy) {
    const { x, y, box } = scales;
    set({
      xRange: between(x, box.x - dx, box.x + box.width - dx),
      yRange: between(y, box.y - dy, box.y + box.height - dy),
    });
  }

  function pixel(event) {
    const { left, top, width } = svg.getBoundingClientRect();
    const ratio = svg.viewBox.baseVal.width / width;
    return [(event.clientX - left) * ratio, (event.clientY - top) * ratio];
  }

  let drag = null;
  const inside = ([x, y], { box }) =>
    x >= box.x && x <= box.x + box.width && y >= box.y && y <= box.y + box.height;

  svg.addEventListener("pointerdown", (event) => {
    const start = pixel(event);
    if (event.button || !inside(start, scales)) return;
    svg.setPointerCapture(event.pointerId);
    drag = { start, last: start, moves: state.panning || event.shiftKey };
    drag.box = drag.moves ? null : svg.appendChild(shape("rect", { class: "selection" }));
    tip.hidden = cursor.hidden = true;
  });
  svg.addEventListener("pointermove", (event) => {
    const at = pixel(event);
    if (!drag) return inside(at, scales) ? point(at) : leave();
    if (drag.moves) {
      pan(at[0] - drag.last[0], at[1] - drag.last[1]);
    } else {
      const [x0, x1, y0, y1] = selected(at);
      const size = { x: x0, y: y0, width: x1 - x0, height: y1 - y0 };
      for (const [name, value] of Object.entries(size)) drag.box.setAttribute(name, value);
    }
    drag.last = at;
    return undefined;
  });
  svg.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const at = pixel(event);
    const { start, moves, box } = drag;
    box?.remove();
    const [wide, high] = [Math.abs(at[0] - start[0]), Math.abs(at[1] - start[1])];
    if (!moves && Math.max(wide, high) >= MIN_DRAG) {
      const [x0, x1, y0, y1] = selected(at);
      const change = {};
      if (wide >= MIN_DRAG) change.xRange = between(scales.x, x0, x1);
      if (high >= 3 * MIN_DRAG) change.yRange = between(scales.y, y0, y1);
      set(change);
    }
    drag = null;
  });
  svg.addEventListener("pointercancel", () => {
    drag?.box?.remove();
    drag = null;
  });
  svg.addEventListener("dblclick", () => set({ xRange: null, yRange: null }));
  svg.addEventListener("pointerleave", () => drag || leave());

  /** Return the dragged rectangle. If it is flat or narrow, extend it to the whole frame. */
  function selected([x, y]) {
    const { box } = scales;
    const clamp = (value, low, length) => Math.min(Math.max(value, low), low + length);
    const ends = (a, b, low, length, minimum) =>
      Math.abs(a - b) < minimum
        ? [low, low + length]
        : [clamp(Math.min(a, b), low, length), clamp(Math.max(a, b), low, length)];
    const [x0, x1] = ends(drag.start[0], x, box.x, box.width, MIN_DRAG);
    const [y0, y1] = ends(drag.start[1], y, box.y, box.height, 3 * MIN_DRAG);
    return [x0, x1, y0, y1];
  }

  // values under the cursor -------------------------------------------------------------------

  function leave() {
    tip.hidden = cursor.hidden = true;
    cursorX = null;
  }

  /** Show the values nearest to the pixel (px, py), or nearest to px alone if py is null. */
  function point([px, py]) {
    const { x, y, box } = scales;
    const candidates = [];
    for (const line of visible()) {
      let [best, distance] = [-1, Infinity];
      line.x.forEach((value, i) => {
        if (line.y[i] === null || !drawable(value, x.log) || !drawable(line.y[i], y.log)) return;
        const away = Math.abs(x(value) - px);
        if (away < distance) [best, distance] = [i, away];
      });
      if (best >= 0 && distance < Math.max(40, box.width / line.x.length)) {
        const away = py === null ? 0 : Math.abs(y(line.y[best]) - py);
        candidates.push({ line, i: best, away });
      }
    }
    if (!candidates.length) return leave();
    candidates.sort((one, other) => one.away - other.away);
    const nearest = candidates[0];
    const at = nearest.line.x[nearest.i];
    cursorX = at;
    const shown = candidates.slice(0, MAX_TIP_LINES)
      .sort((one, other) => other.line.y[other.i] - one.line.y[one.i]);
    const title = `${AXES.find(([name]) => name === state.axis)[1]}: ${text(at)}`;
    const more = candidates.length - shown.length;
    tip.replaceChildren(
      element("strong", {}, title),
      element("table", {}, shown.map((entry) => valueRow(entry, py !== null && entry === nearest))),
      more > 0 ? element("em", {}, `and ${more} more`) : "",
    );
    const ratio = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    const left = x(at) * ratio;
    cursor.hidden = tip.hidden = false;
    cursor.style.left = `${left}px`;
    cursor.style.top = `${box.y * ratio}px`;
    cursor.style.height = `${box.height * ratio}px`;
    const maxLeft = frame.clientWidth - tip.offsetWidth - 4;
    const tipLeft = left + 14 > maxLeft ? left - tip.offsetWidth - 14 : left + 14;
    tip.style.left = `${Math.max(4, Math.min(tipLeft, maxLeft))}px`;
    tip.style.top = `${Math.max(4, Math.min((py ?? box.y) * ratio - 20, frame.clientHeight - tip.offsetHeight))}px`;
    return `${title}; ${shown.map(({ line, i }) => `${line.label}: ${text(line.y[i])}`).join("; ")}`;
  }

  function valueRow({ line, i }, nearest) {
    const spread = line.low && line.n[i] > 1
      ? ` ± ${text((line.high[i] - line.low[i]) / 2, 2)} (n = ${line.n[i]})`
      : "";
    const part = state.metric.includes("+") ? `, ${line.column.split("_")[0]}` : "";
    const key = paint(shape("svg", { viewBox: "0 0 16 8", class: "key" },
      shape("line", { class: `line${line.second ? " second" : ""}`, x1: 0, x2: 16, y1: 4, y2: 4 })),
    line.entry);
    return element("tr", { class: nearest ? "nearest" : null },
      element("td", {}, key), element("td", {}, line.label + part),
      element("td", { class: "r" }, text(line.y[i]) + spread));
  }

  svg.addEventListener("keydown", (event) => {
    const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const acts = { "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2) };
    acts[0] = acts.Escape = () => set({ xRange: null, yRange: null });
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const arrow = arrows[event.key];
    if (arrow && event.shiftKey) pan(-arrow[0] * 60, -arrow[1] * 40);
    else if (arrow && arrow[0]) step(arrow[0]);
    else if (acts[event.key]) acts[event.key]();
    else return;
    event.preventDefault();
  });

  /** Move the cursor to the next or previous x value of any line. */
  function step(direction) {
    const [low, high] = scales.x.domain;
    const places = [...new Set(visible().flatMap((line) => line.x))]
      .filter((value) => value !== null && value >= low && value <= high)
      .sort((a, b) => a - b);
    if (!places.length) return;
    const next = direction > 0
      ? places.find((value) => cursorX !== null && value > cursorX)
      : places.findLast((value) => cursorX !== null && value < cursorX);
    const at = next ?? (direction > 0 ? places[cursorX === null ? 0 : places.length - 1] : places[0]);
    spoken.textContent = point([scales.x(at), null]) || "";
  }

  new ResizeObserver(() => state.points.length && draw()).observe(frame);
  return { show, state };
}
