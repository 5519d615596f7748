/** The confidence slider, and the classes with their number of detections. */

import { h, setText } from "./dom.js";
import { hue } from "./filter.js";

/** Shows the results' classes and changes the filter, until the signal is aborted. */
export class FilterPanel {
  #filter;
  #results;
  #slider = h("input", { type: "range", id: "confidence", class: "slider", min: 0, max: 100, step: 1, value: 0 });
  #value = h("output", { for: "confidence", class: "slider-value" });
  #list = h("ul", { class: "classes" });
  #rows = new Map();
  #none = h("p", { class: "empty-small" }, "No detections.");
  #touched = false;

  constructor(filter, results, signal) {
    this.#filter = filter;
    this.#results = results;
    this.#slider.addEventListener("input", () => {
      this.#touched = true;
      filter.minimum = Number(this.#slider.value) / 100;
    });
    const both = h(
      "div",
      { class: "panel-actions" },
      h("button", { class: "button button-small", on: { click: () => this.#tickAll(true) } }, "All"),
      h("button", { class: "button button-small", on: { click: () => this.#tickAll(false) } }, "None"),
    );
    const label = h(
      "div",
      { class: "slider-head" },
      h("label", { for: "confidence" }, "Confidence at least"),
      this.#value,
    );
    const head = h("div", { class: "panel-head" }, h("h2", { id: "classes-title" }, "Classes"), both);
    const group = h("div", { role: "group", "aria-labelledby": "classes-title" }, head, this.#list, this.#none);
    this.node = h("section", { class: "card panel", "aria-label": "Filters" }, label, this.#slider, group);
    results.addEventListener("change", () => this.#renew(), { signal });
    filter.addEventListener("change", () => this.#show(), { signal });
    this.#renew();
  }

  #tickAll(ticked) {
    this.#filter.tick([...this.#rows.keys()], ticked);
  }

  #renew() {
    const { classes, leastConfidence } = this.#results;
    const wanted = new Set(classes.map(({ classNum }) => classNum));
    for (const [classNum, row] of this.#rows) {
      if (!wanted.has(classNum)) {
        row.node.remove();
        this.#rows.delete(classNum);
      }
    }
    classes.forEach((entry, place) => {
      if (this.#rows.has(entry.classNum)) return;
      const row = classRow(entry, (ticked) => this.#filter.tick([entry.classNum], ticked));
      this.#rows.set(entry.classNum, row);
      this.#list.insertBefore(row.node, this.#list.children[place] ?? null);
    });
    this.#none.hidden = this.#rows.size > 0;
    this.#slider.min = Math.floor(leastConfidence * 20) * 5;
    if (!this.#touched) this.#slider.value = this.#slider.min;
    this.#show();
  }

  #show() {
    const counts = new Map();
    for (const { detections } of this.#results.frames) {
      for (const { classNum, confidence } of detections) {
        if (confidence >= this.#filter.minimum) counts.set(classNum, (counts.get(classNum) ?? 0) + 1);
      }
    }
    for (const [classNum, { box, count }] of this.#rows) {
      box.checked = this.#filter.shows(classNum);
      setText(count, (counts.get(classNum) ?? 0).toLocaleString("en"));
    }
    setText(this.#value, `${this.#slider.value} %`);
    this.#slider.setAttribute("aria-valuetext", `${this.#slider.value} percent`);
  }
}

function classRow({ classNum, label }, change) {
  const box = h("input", { type: "checkbox", on: { change: () => change(box.checked) } });
  const count = h("span", { class: "count" });
  const swatch = h("span", { class: `swatch ${hue(classNum)}`, "aria-hidden": "true" });
  const node = h(
    "li",
    {},
    h("label", { class: "class-row" }, box, swatch, h("span", { class: "class-label" }, label), count),
  );
  return { node, box, count };
}
