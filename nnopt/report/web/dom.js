// Elements, number formats and the order of values. All text is inserted as text nodes, so that
// no text of a run is interpreted as HTML.

const data = JSON.parse(document.getElementById("data").textContent);

/** Create an element, as in element("td", {class: "number", onclick: act}, "text", child, null). */
function element(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

function shape(tag, attributes = {}, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, value);
    }
  }
  const exists = (child) => child !== null && child !== undefined && child !== false;
  node.append(...children.flat(Infinity).filter(exists));
  return node;
}

/** Format a number with four digits, in scientific notation if it is very large or small. */
function text(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  if (size >= 1e7 || size < 1e-4) return value.toExponential(digits - 2).replace("e+", "e");
  return String(Number(value.toPrecision(digits)));
}

/** Format a value of a key; long numbers get five digits. */
function brief(value) {
  const number = numberOf(value);
  return number !== null && String(value).length > 9 ? text(number, 5) : String(value);
}

/** Format a metric; accuracies and seconds have fixed decimals, so that columns are aligned. */
function metricText(name, value) {
  if (typeof value !== "number") return text(value);
  if (name.endsWith("accuracy")) return value.toFixed(4);
  if (name.endsWith("loss") && Math.abs(value) >= 1e-3 && Math.abs(value) < 1e4) {
    return value.toPrecision(4);
  }
  return name.endsWith("seconds") ? value.toFixed(value < 10 ? 2 : 1) : text(value);
}

/** Return the number in a text, or null. */
function numberOf(value) {
  if (typeof value === "number") return value;
  if (typeof value !== "string" || value.trim() === "") return null;
  const number = Number(value);
  return Number.isFinite(number) ? number : null;
}

/** Compare values: numbers before texts, and missing values last in both directions. */
function compareValues(one, other, direction = 1) {
  const missing = (value) => value === null || value === undefined || value === "–";
  if (missing(one) || missing(other)) return missing(one) - missing(other);
  const [a, b] = [numberOf(one), numberOf(other)];
  if (a !== null && b !== null) return direction * (a - b);
  if (a !== null || b !== null) return direction * (a === null ? 1 : -1);
  return direction * String(one).localeCompare(String(other), "en", { numeric: true });
}

function plural(count, noun) {
  return `${count.toLocaleString("en-US")} ${noun}${count === 1 ? "" : "s"}`;
}

/** Return a labelled selection; choices is a list of [value, text]. */
function choice(label, choices, value, change) {
  const select = element(
    "select",
    { onchange: () => change(select.value) },
    choices.map(([key, words]) => element("option", { value: key, selected: key === value }, words)),
  );
  return element("label", {}, element("span", {}, label), select);
}

function tick(label, checked, change) {
  const box = element("input", { type: "checkbox", checked, onchange: () => change(box.checked) });
  return element("label", { class: "tick" }, box, element("span", {}, label));
}

function button(label, act, attributes = {}) {
  return element("button", { type: "button", onclick: act, ...attributes }, label);
}
