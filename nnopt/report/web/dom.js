// Elements, numbers as text, and how values are ordered. All text goes into text nodes: nothing
// that a user typed is ever read as HTML.

const data = JSON.parse(document.getElementById("data").textContent);

/** element("td", {class: "number", onclick: act}, "text", child, null) */
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
  const there = (child) => child !== null && child !== undefined && child !== false;
  node.append(...children.flat(Infinity).filter(there));
  return node;
}

/** Four digits; very large and very small numbers as multiples of powers of ten. */
function text(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (typeof value !== "number") return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e7) return value.toLocaleString("en-US");
  const size = Math.abs(value);
  if (size >= 1e7 || size < 1e-4) return value.toExponential(digits - 2).replace("e+", "e");
  return String(Number(value.toPrecision(digits)));
}

/** A value of a key, a long number with five digits. */
function brief(value) {
  const number = numberOf(value);
  return number !== null && String(value).length > 9 ? text(number, 5) : String(value);
}

/** A metric's value: accuracies and seconds with the same decimals, so that columns align. */
function metricText(name, value) {
  if (typeof value !== "number") return text(value);
  if (name.endsWith("accuracy")) return value.toFixed(4);
  if (name.endsWith("loss") && Math.abs(value) >= 1e-3 && Math.abs(value) < 1e4) {
    return value.toPrecision(4);
  }
  return name.endsWith("seconds") ? value.toFixed(value < 10 ? 2 : 1) : text(value);
}

/** The number a text is, or null. */
function numberOf(value) {
  if (typeof value === "number") return value;
  if (typeof value !== "string" || value.trim() === "") return null;
  const number = Number(value);
  return Number.isFinite(number) ? number : null;
}

/** Numbers by size, then words; what is missing comes last, whichever way is up. */
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

/** A labelled choice: choices is a list of [value, text]. */
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
