/** A photo with boxes for its detections. */

import { Boxes } from "./boxes.js";
import { h } from "./dom.js";
import { fitFrame, loadWithRetry, unsupportedNotice } from "./frame.js";

/** `onShown(detections, null)` is called whenever the shown detections change. */
export class PhotoStage {
  #media;
  #link;
  #results;
  #filter;
  #onShown;
  #boxes;
  #frame = h("div", { class: "frame" });
  #image;
  #source;

  constructor({ media, link, results, filter, onShown, signal }) {
    this.#media = media;
    this.#link = link;
    this.#results = results;
    this.#filter = filter;
    this.#onShown = onShown;
    this.#boxes = new Boxes(signal);
    const on = { load: () => this.#loaded(), error: () => this.#broken() };
    this.#image = h("img", { class: "picture", alt: `The photo ${media.name}`, on });
    this.#frame.append(this.#image, this.#boxes.node);
    this.node = h("figure", { class: "stage stage-photo" }, this.#frame);
    results.addEventListener("change", () => this.#draw(), { signal });
    filter.addEventListener("change", () => this.#draw(), { signal });
    this.#source = loadWithRetry(link, (url) => (this.#image.src = url), signal);
  }

  highlight(index) {
    this.#boxes.highlight(index);
  }

  #loaded() {
    this.#source.loaded();
    fitFrame(this.#frame, this.#image.naturalWidth, this.#image.naturalHeight);
    this.#draw();
  }

  async #broken() {
    if (!(await this.#source.isUnusable())) return;
    this.node.replaceChildren(unsupportedNotice(this.#media, this.#link, "This browser cannot show this picture"));
  }

  #draw() {
    const shown = this.#results.frames.flatMap((frame) => frame.detections).filter((one) => this.#filter.passes(one));
    this.#boxes.show(shown);
    this.#onShown(shown, null);
  }
}
