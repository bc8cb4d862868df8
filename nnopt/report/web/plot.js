// Line plots in SVG: scales, ticks, bands and lines.

const MARGIN = { left: 58, right: 14, top: 10, bottom: 40 };

/** Return the function from values to pixels of a linear or logarithmic axis; `from` is its inverse. */
function scale([low, high], [start, end], log) {
  const forward = log ? Math.log10 : (value) => value;
  const back = log ? (value) => 10 ** value : (value) => value;
  const [a, b] = [forward(low), forward(high)];
  const to = (value) => start + ((forward(value) - a) / (b - a)) * (end - start);
  to.from = (pixel) => back(a + ((pixel - start) / (end - start)) * (b - a));
  to.domain = [low, high];
  to.log = log;
  return to;
}

/** Return about `count` round numbers within the domain; only integers if `whole`. */
function ticks([low, high], log, count, whole = false) {
  if (log && high / low >= 8) {
    const decades = Math.log10(high / low);
    const step = Math.max(1, Math.ceil(decades / count));
    const factors = decades < count / 2 ? [1, 2, 5] : [1];
    const values = [];
    for (let power = Math.floor(Math.log10(low)); 10 ** power <= high; power += step) {
      values.push(...factors.map((factor) => Number(`${factor}e${power}`)));
    }
    return values.filter((value) => value >= low && value <= high);
  }
  const rough = Math.max((high - low) / count, whole ? 1 : 0);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= rough);
  const values = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) {
    values.push(Number((i * step).toPrecision(12)));
  }
  return values;
}

const drawable = (value, log) => value !== null && (!log || value > 0);

/** Return the range of the drawn values on an axis; for y, only values with x within xRange. */
function extent(series, axis, log, xRange = null) {
  const values = [];
  for (const line of series) {
    for (const key of axis === "x" ? ["x"] : ["y", "low", "high"]) {
      (line[key] || []).forEach((value, i) => {
        const inside = !xRange || (line.x[i] >= xRange[0] && line.x[i] <= xRange[1]);
        if (inside && line.y[i] !== null && drawable(value, log)) values.push(value);
      });
    }
  }
  if (!values.length) return { range: log ? [0.1, 1] : [0, 1], above: 0 };
  values.sort((a, b) => a - b);
  let [low, high] = [values[0], values.at(-1)];
  let above = 0;
  if (axis === "y" && !log) {
    // The axis omits extreme values, because a diverging run would flatten all other lines.
    const [q1, q9] = [0.05, 0.9].map((level) => values[Math.floor(level * (values.length - 1))]);
    const limit = q9 + 20 * (q9 - q1);
    if (high > limit && q9 > q1) {
      high = q9 + (q9 - q1);
      above = values.filter((value) => value > high).length;
    }
  }
  return { range: padded(low, high, axis, log), above };
}

function padded(low, high, axis, log) {
  if (log) {
    const factor = low === high ? 2 : axis === "y" ? (high / low) ** 0.04 : 1;
    return [low / factor, high * factor];
  }
  const margin = low === high ? Math.abs(low) * 0.1 || 0.5 : axis === "y" ? (high - low) * 0.04 : 0;
  return [low - margin, high + margin];
}

function paint(node, entry) {
  node.classList.add(`c${entry.colour}`, `d${entry.dash}`);
  if (entry.ramp !== null) {
    const position = entry.ramp * 4;
    const stop = Math.min(3, Math.floor(position));
    const percent = Math.round((position - stop) * 100);
    const mixed = `color-mix(in oklab, var(--r${stop + 1}) ${percent}%, var(--r${stop}))`;
    node.style.setProperty("--line", mixed);
  }
  return node;
}

/**
 * Draw the series into the SVG and return the scales. frame: width, height, xRange, yRange, xLog, yLog,
 * xLabel, yLabel, xWhole (integer ticks).
 */
function drawPlot(svg, series, frame) {
  const right = frame.width - MARGIN.right;
  const bottom = frame.height - MARGIN.bottom;
  const x = scale(frame.xRange, [MARGIN.left, right], frame.xLog);
  const y = scale(frame.yRange, [bottom, MARGIN.top], frame.yLog);
  const bands = series.filter((line) => line.low).length;
  svg.style.setProperty("--band", String(Math.min(0.13, 1.6 / Math.max(1, bands)))); // many bands are paler
  svg.setAttribute("viewBox", `0 0 ${frame.width} ${frame.height}`);
  const clip = `clip-${(drawPlot.count = (drawPlot.count || 0) + 1)}`;
  const box = { x: MARGIN.left, y: MARGIN.top, width: right - MARGIN.left, height: bottom - MARGIN.top };
  const lines = shape("g", { "clip-path": `url(#${clip})` });
  for (const line of series) lines.append(...drawLine(line, x, y));
  svg.replaceChildren(
    shape("defs", {}, shape("clipPath", { id: clip }, shape("rect", box))),
    ...drawAxes(x, y, box, frame),
    lines,
  );
  return { x, y, box };
}

function drawAxes(x, y, box, frame) {
  const bottom = box.y + box.height;
  const parts = [];
  for (const value of ticks(x.domain, x.log, Math.max(2, box.width / 90), frame.xWhole)) {
    const at = x(value);
    parts.push(shape("line", { class: "grid", x1: at, x2: at, y1: box.y, y2: bottom }));
    parts.push(shape("text", { class: "tick x", x: at, y: bottom + 16 }, tickText(value)));
  }
  for (const value of ticks(y.domain, y.log, Math.max(2, box.height / 42))) {
    const at = y(value);
    parts.push(shape("line", { class: "grid", x1: box.x, x2: box.x + box.width, y1: at, y2: at }));
    parts.push(shape("text", { class: "tick y", x: box.x - 8, y: at + 4 }, tickText(value)));
  }
  const middle = box.y + box.height / 2;
  return [
    ...parts,
    shape("path", { class: "axis", d: `M${box.x} ${box.y}V${bottom}H${box.x + box.width}` }),
    shape("text", { class: "label", x: box.x + box.width / 2, y: frame.height - 6 }, frame.xLabel),
    shape(
      "text",
      { class: "label", x: 12, y: middle, transform: `rotate(-90 12 ${middle})` },
      frame.yLabel,
    ),
  ];
}

function tickText(value) {
  const size = Math.abs(value);
  if (size >= 1e5 || (size < 1e-3 && size > 0)) {
    return value.toExponential().replace("e+", "e").replace("-", "−");
  }
  return value.toLocaleString("en-US", { maximumFractionDigits: 6 }).replace("-", "−");
}

/** Return the elements of a band and of a line. The line has gaps at missing values. */
function drawLine(line, x, y) {
  const parts = [];
  const shown = line.x.map((value, i) => drawable(value, x.log) && drawable(line.y[i], y.log));
  const at = (value) => Math.round(y(value) * 10) / 10;
  const across = line.x.map((value) => Math.round(x(value) * 10) / 10);
  let [path, broken, alone] = ["", true, []];
  line.x.forEach((_, i) => {
    if (shown[i]) {
      path += `${broken ? "M" : "L"}${across[i]} ${at(line.y[i])}`;
      if (broken && !shown[i + 1]) alone.push(i);
    }
    broken = !shown[i];
  });
  const kind = `${line.second ? " second" : ""}${line.faint ? " faint" : ""}`;
  if (line.low && !line.second) {
    // On a logarithmic axis, a band with values below 0 ends at the frame.
    const floor = (value) => (y.log ? Math.max(value, y.domain[0]) : value);
    const there = across.map((_, i) => i).filter((i) => shown[i]);
    const top = there.map((i) => `${across[i]} ${at(line.high[i])}`);
    const below = there.reverse().map((i) => `${across[i]} ${at(floor(line.low[i]))}`);
    if (top.length > 1) {
      const d = `M${top.join("L")}L${below.join("L")}Z`;
      parts.push(paint(shape("path", { class: `band${kind}`, d }), line.entry));
    }
  }
  parts.push(paint(shape("path", { class: `line${kind}`, d: path }), line.entry));
  const marked = line.x.length <= 12 ? line.x.map((_, i) => i).filter((i) => shown[i]) : alone;
  for (const i of marked) {
    const dot = { class: `dot${kind}`, cx: across[i], cy: at(line.y[i]), r: line.second ? 2 : 3 };
    parts.push(paint(shape("circle", dot), line.entry));
  }
  return parts;
}
