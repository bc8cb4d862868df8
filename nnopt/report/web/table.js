// Tables with sortable columns and filters.

const MAX_CHOICES = 14; // a column with more distinct values is filtered by a condition

/**
 * Return {node, draw} of a table; draw(rows) shows these rows.
 * columns: [{title, value(row), cell(row), numeric, descends, hint}]; descends: sort larger values first.
 */
function makeTable(columns, { caption, filters, changed, key }) {
  const order = { column: null, direction: 1 };
  const body = element("tbody");
  const heads = columns.map((column, i) => element("th",
    { scope: "col", class: column.numeric ? "r" : null, "aria-sort": "none" },
    column.value
      ? button(breakable(column.title), () => sort(i), { title: column.hint || `sort by ${column.title}` })
      : element("span", { class: column.shown ? null : "unseen" }, column.title)));
  const head = element("thead", {}, element("tr", {}, heads));
  if (filters) head.append(filters);
  const node = element("table", { class: "data" },
    element("caption", { class: "unseen" }, caption), head, body);
  let rows = [];

  function sort(i) {
    const again = order.column === i;
    order.direction = again ? -order.direction : columns[i].descends ? -1 : 1;
    order.column = i;
    heads.forEach((th, index) => {
      const way = order.direction > 0 ? "ascending" : "descending";
      th.setAttribute("aria-sort", index === i ? way : "none");
    });
    draw(rows);
    if (changed) changed();
  }

  function draw(shown) {
    rows = shown;
    const column = columns[order.column];
    const sorted = column
      ? [...rows].sort((a, b) => compareValues(column.value(a), column.value(b), order.direction))
      : rows;
    body.replaceChildren(...sorted.flatMap((row) => rowsOf(row)));
  }

  /** Return a row and, if it is open, the row of its details. Both are created once. */
  function rowsOf(row) {
    if (!row.nodes) row.nodes = new Map();
    if (!row.nodes.has(key)) {
      row.nodes.set(key, [element("tr", { class: row.status ? `is-${row.status}` : null },
        columns.map((column) => element("td", { class: column.numeric ? "r" : null }, column.cell(row))))]);
    }
    return row.nodes.get(key);
  }

  return { node, draw };
}

/** Return a name that may be wrapped after each underscore and dot. */
function breakable(name) {
  return name.split(/(?<=[_.])/).flatMap((part, i) => (i ? [element("wbr"), part] : [part]));
}

/** Return whether a value matches a condition such as ">0.9", "<=1e-3" or "!=adam", or contains a text. */
function passes(value, typed) {
  const condition = typed.trim();
  if (!condition) return true;
  const [, sign, rest] = condition.match(/^(<=|>=|!=|<|>|=)?\s*(.*)$/s);
  const [number, limit] = [numberOf(value), numberOf(rest)];
  if (sign && limit !== null) {
    if (number === null) return sign === "!=";
    const holds = {
      "<": number < limit, "<=": number <= limit, ">": number > limit, ">=": number >= limit,
      "=": number === limit, "!=": number !== limit,
    };
    return holds[sign];
  }
  const words = String(value ?? "").toLowerCase();
  if (sign === "=") return words === rest.toLowerCase();
  if (sign === "!=") return words !== rest.toLowerCase();
  return words.includes(condition.toLowerCase());
}

/** Return the filter of a column: a choice of few values, or a field for a condition. */
function makeFilter(column, rows, change) {
  const values = [...new Set(rows.map((row) => String(column.value(row) ?? "–")))];
  if (!column.measured && values.length <= MAX_CHOICES) {
    if (values.length < 2) return { node: null, holds: () => true, clear: () => {} };
    values.sort((a, b) => compareValues(a, b));
    const select = element("select", { "aria-label": `only ${column.title}`, onchange: change },
      element("option", { value: "" }, "all"),
      values.map((value, i) => element("option", { value: i + 1 }, value)));
    const holds = (row) => !select.value || String(column.value(row) ?? "–") === values[select.value - 1];
    const choose = (value) => { select.value = String(values.indexOf(value) + 1 || ""); };
    return { node: select, holds, choose, clear: () => { select.value = ""; } };
  }
  const field = element("input", {
    type: "text", size: 7, "aria-label": `condition on ${column.title}`, oninput: change,
    placeholder: column.numeric ? "> 0" : "part of it",
  });
  return { node: field, holds: (row) => passes(column.value(row), field.value), clear: () => { field.value = ""; } };
}
