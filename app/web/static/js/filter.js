/** The filter of shown detections: by class and minimum confidence. */

/** Dispatches `change` when the filter changes. */
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

/** Return the style class for a detection class's colour, used in boxes, marks and lists. */
export function hue(classNum) {
  return `hue-${classNum % 8}`;
}
