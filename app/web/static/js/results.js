/** What a run found, as it is known now: frames in the order of their time. */

/** Says `change` when there is more of it, or something else. */
export class Results extends EventTarget {
  run = null;
  frames = [];

  /** Everything a run found. */
  replace(run, frames) {
    this.run = run;
    this.frames = frames;
    this.dispatchEvent(new Event("change"));
  }

  /**
   * Some more of a run that goes on. The first of another run take the place of what was there, and so do those of
   * one that began again: `restart`.
   */
  extend(runId, frames, restart = false) {
    if (this.run?.id !== runId || restart) {
      this.run = { id: runId };
      this.frames = [];
    }
    const known = new Set(this.frames.map((frame) => frame.frame));
    this.frames = [...this.frames, ...frames.filter((frame) => !known.has(frame.frame))].sort(
      (a, b) => a.time - b.time,
    );
    this.dispatchEvent(new Event("change"));
  }

  /** Each class that was found at all: `{classNum, label}`, by label. */
  get classes() {
    const found = new Map();
    for (const { detections } of this.frames) {
      for (const { classNum, label } of detections) found.set(classNum, { classNum, label });
    }
    return [...found.values()].sort((a, b) => a.label.localeCompare(b.label));
  }

  /** The least confidence of anything found; 0 where nothing was. */
  get leastConfidence() {
    let least = 1;
    for (const { detections } of this.frames) {
      for (const { confidence } of detections) least = Math.min(least, confidence);
    }
    return this.frames.length ? least : 0;
  }

  /** The frame nearest to a time, at most `within` seconds from it; `null` for none. */
  nearest(time, within) {
    let low = 0;
    let high = this.frames.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.frames[middle].time < time) low = middle + 1;
      else high = middle;
    }
    const near = [this.frames[low - 1], this.frames[low]].filter(Boolean);
    near.sort((a, b) => Math.abs(a.time - time) - Math.abs(b.time - time));
    return near.length && Math.abs(near[0].time - time) <= within ? near[0] : null;
  }
}
