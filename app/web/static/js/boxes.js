/** Boxes over a picture, placed in fractions of it, so that they fit at any size. */

import { setAttribute, svg } from "./dom.js";
import { hue } from "./filter.js";
import { percent } from "./format.js";

const LABEL_HEIGHT = 22;
const PADDING = 7;

/** An overlay that covers its picture exactly. Append `node` to the picture's frame. */
export class Boxes {
  #shown = [];
  #labels = [];

  constructor(signal) {
    this.node = svg("svg", { class: "boxes", role: "img", "aria-label": "No boxes" });
    const observer = new ResizeObserver(() => this.#place());
    observer.observe(this.node);
    signal.addEventListener("abort", () => observer.disconnect());
  }

  /** Show these detections. */
  show(detections) {
    if (detections === this.#shown) return;
    this.#shown = detections;
    this.#labels = detections.map((detection) => new Label(detection));
    this.node.replaceChildren(...detections.map(box), ...this.#labels.map((label) => label.node));
    setAttribute(this.node, "aria-label", describe(detections));
    this.#place();
  }

  /** Highlight the detection of that index, `null` for none. */
  highlight(index) {
    this.node.classList.toggle("boxes-dimmed", index !== null);
    [...this.node.querySelectorAll(".box")].forEach((node, place) => node.classList.toggle("box-lit", place === index));
    this.#labels.forEach((label, place) => label.node.classList.toggle("box-lit", place === index));
  }

  #place() {
    const { width, height } = this.node.getBoundingClientRect();
    if (width) for (const label of this.#labels) label.place(width, height);
  }
}

/** Return a detection's box, clipped to the picture, as fractions. */
function corners({ centerX, centerY, width, height }) {
  const clamp = (value) => Math.min(1, Math.max(0, value));
  return {
    left: clamp(centerX - width / 2),
    top: clamp(centerY - height / 2),
    right: clamp(centerX + width / 2),
    bottom: clamp(centerY + height / 2),
  };
}

function box(detection) {
  const { left, top, right, bottom } = corners(detection);
  const place = { x: share(left), y: share(top), width: share(right - left), height: share(bottom - top) };
  const shade = svg("rect", { class: "box-shade", ...place });
  return svg("g", { class: `box ${hue(detection.classNum)}` }, shade, svg("rect", { class: "box-line", ...place }));
}

/** The label and confidence of a box, above it if there is space, else inside. */
class Label {
  #detection;
  #ground = svg("rect", { class: "label-ground", height: LABEL_HEIGHT, rx: 4 });
  #text;

  constructor(detection) {
    this.#detection = detection;
    this.#text = svg(
      "text",
      { class: "label-text", y: LABEL_HEIGHT - 7 },
      `${detection.label} ${percent(detection.confidence)}`,
    );
    this.node = svg(
      "g",
      { class: `box-label ${hue(detection.classNum)}`, "aria-hidden": "true" },
      this.#ground,
      this.#text,
    );
  }

  /** Place the label in an overlay of that size in pixels. */
  place(width, height) {
    const { left, top } = corners(this.#detection);
    const wide = this.#text.getComputedTextLength() + 2 * PADDING;
    const above = top * height - LABEL_HEIGHT - 2;
    const x = Math.max(0, Math.min(left * width - 1, width - wide));
    const y = above >= 0 ? above : Math.min(top * height + 3, height - LABEL_HEIGHT);
    setAttribute(this.#ground, "width", wide);
    setAttribute(this.#text, "x", PADDING);
    setAttribute(this.node, "transform", `translate(${x.toFixed(1)} ${y.toFixed(1)})`);
  }
}

function share(fraction) {
  return `${(fraction * 100).toFixed(4)}%`;
}

function describe(detections) {
  if (!detections.length) return "No boxes";
  const each = detections.map(({ label, confidence }) => `${label} ${percent(confidence)}`);
  return `${detections.length} ${detections.length === 1 ? "box" : "boxes"}: ${each.join(", ")}`;
}
