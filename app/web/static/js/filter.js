/** Which of the things found are shown: those of the ticked classes, from a confidence on. */

/** Says `change` when it lets other things through. */
export class Filter extends EventTarget {
  #minimum = 0;
  #hidden = new Set();

  get minimum() {
    return this.#minimum;
  }

  set minimum(value) {
    this.#minimum = value;
    this.#changed();
  }

  shows(classNum) {
    return !this.#hidden.has(classNum);
  }

  tick(classNums, ticked) {
    for (const classNum of classNums) {
      if (ticked) this.#hidden.delete(classNum);
      else this.#hidden.add(classNum);
    }
    this.#changed();
  }

  passes(detection) {
    return detection.confidence >= this.#minimum && this.shows(detection.classNum);
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

/** The colour of a class, as a class of the style sheet: the same in boxes, marks and lists. */
export function hue(classNum) {
  return `hue-${classNum % 8}`;
}
