// Lines of the chart: of single runs, or means of settings over their seeds.

const COLOURS = 7; // the number of colours; they have the same order as in the plots
const DASHES = 4; // d0 to d3 in page.css; 7 and 4 are coprime, so 28 lines are distinct

const AXES = [["epoch", "epochs"], ["step", "optimizer steps"], ["seconds", "seconds of training"]];

/** Return the values of a column at every selected epoch; null if the run lacks the column. */
function columnOf(point, name) {
  if (point.grid === undefined || point.columns[name] === undefined) return null;
  const column = point.columns[name];
  return Array.isArray(column) ? column : data.grids[point.grid].epoch.map(() => column);
}

function axisOf(point, axis) {
  return axis === "seconds" ? point.seconds : data.grids[point.grid][axis];
}

/** Return the metrics of these points as [value, text]; value contains columns joined by "+". */
function metricsOf(points) {
  const has = (name) => points.some((point) => point.columns && point.columns[name] !== undefined);
  const single = data.curves.filter(has).map((name) => [name, words(name)]);
  const pairs = ["loss", "accuracy"]
    .filter((name) => has(`train_${name}`) && has(`validation_${name}`))
    .map((name) => [`validation_${name}+train_${name}`, `${name}, also of training`]);
  return [...pairs, ...single];
}

function words(name) {
  const known = { lr: "learning rate", gradient_norm: "gradient norm" };
  return known[name] || name.replaceAll("_", " ");
}

/** Return the values of the keys that vary in the scope. */
function settingOf(point, scope) {
  return scope.keys.map((key) => point.keys[scopeKeys.indexOf(key)]);
}

function valueOf(point, key) {
  return point.keys[scopeKeys.indexOf(key)];
}

const scopeKeys = [...new Set(data.scopes.flatMap((scope) => scope.keys))];

/** Return the legend entries, one for each value of the key that determines the colours. */
function legendOf(points, scope, colour) {
  const valuesOf = (point) => (colour === "setting" ? settingOf(point, scope) : [valueOf(point, colour)]);
  const entries = new Map();
  for (const point of points) {
    const values = valuesOf(point);
    const label = values.join(" · ") || "all runs";
    if (!entries.has(label)) entries.set(label, { label, values });
  }
  const sorted = [...entries.values()].sort((one, other) => {
    for (let i = 0; i < one.values.length; i += 1) {
      const order = compareValues(one.values[i], other.values[i]);
      if (order) return order;
    }
    return 0;
  });
  const numeric = sorted.length > 3 && sorted.every(
    ({ values }) => values.length === 1 && numberOf(values[0]) !== null,
  );
  sorted.forEach((entry, i) => {
    entry.ramp = numeric ? i / (sorted.length - 1) : null;
    entry.colour = i % COLOURS;
    entry.dash = numeric ? 0 : i % DASHES;
  });
  return { entries: new Map(sorted.map((entry) => [entry.label, entry])), valuesOf };
}

/** Return the lines to draw. options: metric, axis, lines ("mean" or "runs"), colour, scope. */
function seriesOf(points, options) {
  const { entries, valuesOf } = legendOf(points, options.scope, options.colour);
  const entryOf = (point) => entries.get(valuesOf(point).join(" · ") || "all runs");
  const series = [];
  options.metric.split("+").forEach((column, index) => {
    const having = points.filter((point) => columnOf(point, column));
    const groups = new Map();
    having.forEach((point, i) => {
      const group = options.lines === "mean" ? settingOf(point, options.scope).join("\n") : i;
      if (!groups.has(group)) groups.set(group, []);
      groups.get(group).push(point);
    });
    for (const members of groups.values()) {
      const line = members.length > 1
        ? meanOf(members, column, options.axis)
        : lineOf(members[0], column, options.axis);
      const name = settingOf(members[0], options.scope).map(brief).join(" · ");
      const seed = options.lines === "runs" && members[0].seed !== null ? `seed ${members[0].seed}` : "";
      const label = [name, seed].filter(Boolean).join(" · ") || members[0].name;
      series.push({ ...line, column, second: index > 0, label, entry: entryOf(members[0]) });
    }
  });
  return { series, entries: [...entries.values()] };
}

function lineOf(point, column, axis) {
  const y = columnOf(point, column);
  return { x: axisOf(point, axis), y, low: null, high: null, n: y.map(() => 1) };
}

/**
 * Return mean ± standard deviation (denominator n - 1) at each epoch. An epoch is left out if one of
 * the runs that reached it has no value for it: the mean would jump where a run is missing.
 */
function meanOf(points, column, axis) {
  const runs = points.map((point) => {
    const epochs = data.grids[point.grid].epoch;
    const [x, y] = [axisOf(point, axis), columnOf(point, column)];
    return { at: new Map(epochs.map((epoch, i) => [epoch, [x[i], y[i]]])), last: epochs.at(-1) };
  });
  const epochs = [...new Set(runs.flatMap((run) => [...run.at.keys()]))].sort((a, b) => a - b);
  const line = { x: [], y: [], low: [], high: [], n: [] };
  for (const epoch of epochs) {
    const running = runs.filter((run) => run.last >= epoch);
    if (running.some((run) => !run.at.has(epoch))) continue;
    const pairs = running.map((run) => run.at.get(epoch)).filter(([x, y]) => x !== null && y !== null);
    if (!pairs.length) continue;
    const n = pairs.length;
    const mean = pairs.reduce((sum, [, y]) => sum + y, 0) / n;
    const squares = pairs.reduce((sum, [, y]) => sum + (y - mean) ** 2, 0);
    const std = n > 1 ? Math.sqrt(squares / (n - 1)) : 0;
    line.x.push(pairs.reduce((sum, [x]) => sum + x, 0) / n);
    line.y.push(mean);
    line.low.push(mean - std);
    line.high.push(mean + std);
    line.n.push(n);
  }
  return line;
}
