/** The detections shown on the picture, as a list. */

import { h, setText } from "./dom.js";
import { hue } from "./filter.js";
import { clock, percent } from "./format.js";

/** `onPoint(index)` is called with the item under the pointer, `null` for none. */
export class DetectionList {
  #list = h("ol", { class: "found" });
  #heading = h("h2", {}, "In this picture");
  #none = h("p", { class: "empty-small" }, "No detections are shown.");
  #onPoint;

  constructor(onPoint) {
    this.#onPoint = onPoint;
    this.node = h(
      "section",
      { class: "card panel", "aria-label": "Objects in this picture" },
      this.#heading,
      this.#list,
      this.#none,
    );
  }

  /** Show detections. `time` is the position in a video in seconds, `null` for a photo. */
  show(detections, time) {
    setText(this.#heading, time === null ? "In this picture" : `At ${clock(time)}`);
    this.#none.hidden = detections.length > 0;
    this.#list.replaceChildren(...detections.map((detection, index) => this.#row(detection, index)));
  }

  #row({ classNum, label, confidence }, index) {
    const listeners = { pointerenter: () => this.#onPoint(index), pointerleave: () => this.#onPoint(null) };
    const swatch = h("span", { class: `swatch ${hue(classNum)}`, "aria-hidden": "true" });
    return h(
      "li",
      { class: "found-row", on: listeners },
      swatch,
      h("span", { class: "class-label" }, label),
      h("span", { class: "count" }, percent(confidence)),
    );
  }
}
