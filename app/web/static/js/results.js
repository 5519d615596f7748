/** A run's result so far: frames in order of time. */

/** Dispatches `change` when the result changes. */
export class Results extends EventTarget {
  run = null;
  frames = [];

  /** Replace the result. */
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

  /** The detected classes, `{classNum, label}`, sorted by label. */
  get classes() {
    const classes = new Map();
    for (const { detections } of this.frames) {
      for (const { classNum, label } of detections) classes.set(classNum, { classNum, label });
    }
    return [...classes.values()].sort((a, b) => a.label.localeCompare(b.label));
  }

  /** The lowest confidence of all detections; 0 without any. */
  get leastConfidence() {
    let least = 1;
    for (const { detections } of this.frames) {
      for (const { confidence } of detections) least = Math.min(least, confidence);
    }
    return this.frames.length ? least : 0;
  }

  /** The frame nearest to a time, at most `within` seconds away, or `null`. */
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
