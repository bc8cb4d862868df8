// Tables whose columns sort, and rows that can be filtered.

const CHOICES = 14; // a column of at most so many different values is filtered by choosing one

/**
 * columns: [{title, value(row), cell(row), numeric, descends, hint}]; descends: the larger values
 * are the better ones, and come first. Returns {node, draw}: draw(rows) shows these.
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
    heads.forEach((th, place) => {
      const way = order.direction > 0 ? "ascending" : "descending";
      th.setAttribute("aria-sort", place === i ? way : "none");
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

  /** A row, and the one below it that shows what was opened; both are kept from draw to draw. */
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

/** A name that may be broken after each underscore and dot. */
function breakable(name) {
  return name.split(/(?<=[_.])/).flatMap((part, i) => (i ? [element("wbr"), part] : [part]));
}

/** Does a value pass what was typed: ">0.9", "<=1e-3", "!=adam", or a part of its text? */
function passes(value, typed) {
  const wanted = typed.trim();
  if (!wanted) return true;
  const [, sign, rest] = wanted.match(/^(<=|>=|!=|<|>|=)?\s*(.*)$/s);
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
  return words.includes(wanted.toLowerCase());
}

/** A field above a column: a choice of its values where they are few, else a condition. */
function makeFilter(column, rows, change) {
  const values = [...new Set(rows.map((row) => String(column.value(row) ?? "–")))];
  if (!column.measured && values.length <= CHOICES) {
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
