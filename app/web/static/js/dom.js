/**
 * Creates elements; the page has no other way.
 *
 * Text is never parsed as HTML, which the page's policy forbids too.
 */

const SVG = "http://www.w3.org/2000/svg";

/**
 * An HTML element. `properties`: `on` holds listeners by event; `true` makes a bare attribute; `false`, `null` and
 * `undefined` leave one out; the rest are attributes. Children are nodes, texts, or `null` for none.
 */
export function h(tag, properties = {}, ...children) {
  return fill(document.createElement(tag), properties, children);
}

/** An SVG element, as `h`. */
export function svg(tag, properties = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

function fill(element, { on = {}, ...attributes }, children) {
  for (const [event, listener] of Object.entries(on)) element.addEventListener(event, listener);
  for (const [name, value] of Object.entries(attributes)) setAttribute(element, name, value);
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** Set an attribute if it differs, or remove it for `false` and `null`. */
export function setAttribute(element, name, value) {
  if (value === false || value === null || value === undefined) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value === true ? "" : value);
}

/** Set a text if it differs, so that selections and screen readers are not disturbed. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Set a style property through the DOM, which the page's policy allows, unlike a style attribute. */
export function setStyle(element, name, value) {
  element.style.setProperty(name, value);
}

/** Show names and values (texts or nodes) in a `dl`, unless they are unchanged. */
export function showFacts(list, rows) {
  const key = rows.map(([name, value]) => `${name}\t${value.textContent ?? value}`).join("\n");
  if (list.dataset.shown === key) return;
  list.dataset.shown = key;
  list.replaceChildren(...rows.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

/** Return an icon in the colour of the surrounding text. */
export function icon(name) {
  const paths = ICONS[name].map((d) => svg("path", { d }));
  return svg("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true", focusable: "false" }, ...paths);
}

const ICONS = {
  photo: [
    "M5 5h14a1 1 0 0 1 1 1v12a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1V6a1 1 0 0 1 1-1z",
    "M4 16l4.5-4.5 4 4 3-3L20 17",
    "M15.5 9.2v.1",
  ],
  video: ["M5 6h9a1 1 0 0 1 1 1v10a1 1 0 0 1-1 1H5a1 1 0 0 1-1-1V7a1 1 0 0 1 1-1z", "M15 10.5l5-2.8v8.6l-5-2.8"],
  upload: ["M12 16V5", "M7.5 9.5L12 5l4.5 4.5", "M5 15v3a1 1 0 0 0 1 1h12a1 1 0 0 0 1-1v-3"],
  back: ["M19 12H5", "M11 6l-6 6 6 6"],
  close: ["M6 6l12 12", "M18 6L6 18"],
  retry: ["M19 12a7 7 0 1 1-2.2-5.1", "M19 4v4h-4"],
  good: ["M5 12.5l4.5 4.5L19 7.5"],
  bad: ["M12 7v6", "M12 16.9v.1", "M12 3l9.5 17h-19z"],
  download: ["M12 5v11", "M7.5 11.5L12 16l4.5-4.5", "M5 19h14"],
  next: ["M7 6l7 6-7 6z", "M17 6v12"],
  previous: ["M17 6l-7 6 7 6z", "M7 6v12"],
  full: ["M5 9V5h4", "M15 5h4v4", "M19 15v4h-4", "M9 19H5v-4"],
};
