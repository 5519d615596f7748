/** A photo with the boxes of what was found on it. */

import { complain } from "./announce.js";
import { Boxes } from "./boxes.js";
import { h } from "./dom.js";
import { fitFrame, unshowable } from "./frame.js";

/** `onShown(detections, null)` is told what is shown, whenever that changes. */
export class PhotoStage {
  #media;
  #link;
  #results;
  #filter;
  #onShown;
  #signal;
  #boxes;
  #frame = h("div", { class: "frame" });
  #image;
  #tries = 0;

  constructor({ media, link, results, filter, onShown, signal }) {
    this.#media = media;
    this.#link = link;
    this.#results = results;
    this.#filter = filter;
    this.#onShown = onShown;
    this.#signal = signal;
    this.#boxes = new Boxes(signal);
    const on = { load: () => this.#loaded(), error: () => this.#broken() };
    this.#image = h("img", { class: "picture", alt: `The photo ${media.name}`, on });
    this.#frame.append(this.#image, this.#boxes.node);
    this.node = h("figure", { class: "stage" }, this.#frame);
    results.addEventListener("change", () => this.#draw(), { signal });
    filter.addEventListener("change", () => this.#draw(), { signal });
    this.#load();
  }

  highlight(index) {
    this.#boxes.highlight(index);
  }

  async #load() {
    this.#tries += 1;
    try {
      this.#image.src = await this.#link.renew();
    } catch (problem) {
      if (!this.#signal.aborted) complain(problem);
    }
  }

  #loaded() {
    fitFrame(this.#frame, this.#image.naturalWidth, this.#image.naturalHeight);
    this.#draw();
  }

  /** A link can have run out on its way, and all seats can be taken; a second error is the picture's own. */
  #broken() {
    if (this.#tries < 2) {
      this.#load();
      return;
    }
    const extension = this.#media.name.split(".").pop().toUpperCase();
    const explanation = `This browser cannot show this picture (${extension}). What was found on it is listed beside.`;
    this.node.replaceChildren(unshowable(this.#media, this.#link, explanation));
  }

  #draw() {
    const found = this.#results.frames.flatMap((frame) => frame.detections).filter((one) => this.#filter.passes(one));
    this.#boxes.show(found);
    this.#onShown(found, null);
  }
}
