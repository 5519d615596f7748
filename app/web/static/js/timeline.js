/** The timeline of a video's detections: a lane for each class, with marks. It is a slider for the keyboard. */

import { h, setAttribute, setStyle } from "./dom.js";
import { hue } from "./filter.js";
import { clock, plural } from "./format.js";

const PAGE_SECONDS = 10;
/** A mark's minimum share of the track's width, so that one sample in an hour is visible. */
const LEAST_SHARE = 0.004;
/** Samples at most this many intervals apart form one mark. */
const JOINED = 1.6;
const SNAP_PIXELS = 8;

/** `onSeek(seconds)` and `onPlay()` are called for the user's actions. */
export class Timeline {
  #results;
  #filter;
  #onSeek;
  #onPlay;
  #duration = 0;
  #interval = 0.5;
  #time = 0;
  #lanes = h("div", { class: "lanes" });
  #names = h("div", { class: "lane-names", "aria-hidden": "true" });
  #head = h("div", { class: "playhead" });
  #track;

  constructor(results, filter, { signal, onSeek, onPlay }) {
    this.#results = results;
    this.#filter = filter;
    this.#onSeek = onSeek;
    this.#onPlay = onPlay;
    const on = { keydown: (event) => this.#key(event), pointerdown: (event) => this.#grab(event) };
    this.#track = h("div", {
      class: "track",
      role: "slider",
      tabindex: "0",
      "aria-label": "Timeline of detections",
      on,
    });
    this.#track.append(this.#lanes, this.#head);
    this.node = h("div", { class: "timeline" }, this.#names, this.#track);
    results.addEventListener("change", () => this.#draw(), { signal });
    filter.addEventListener("change", () => this.#draw(), { signal });
    this.#draw();
  }

  setDuration(seconds) {
    if (!Number.isFinite(seconds) || seconds === this.#duration) return;
    this.#duration = seconds;
    this.#draw();
  }

  /** Set the player's position and the sampling interval, in seconds. */
  setTime(seconds, interval) {
    this.#time = seconds;
    if (Math.abs(interval - this.#interval) > 0.001) {
      this.#interval = interval;
      this.#draw();
      return;
    }
    this.#place();
  }

  /** Seek to the next frame with a shown detection, or with -1 to the previous one. */
  step(direction) {
    const times = this.#finds();
    const beyond = direction > 0 ? (time) => time > this.#time + 0.02 : (time) => time < this.#time - 0.02;
    const time = direction > 0 ? times.find(beyond) : times.findLast(beyond);
    if (time !== undefined) this.#onSeek(time);
  }

  get #length() {
    const last = this.#results.frames.at(-1);
    return this.#duration || (last ? last.time + this.#interval : 0);
  }

  /** The times of frames with a detection that passes the filter. */
  #finds() {
    return this.#results.frames
      .filter(({ detections }) => detections.some((one) => this.#filter.passes(one)))
      .map(({ time }) => time);
  }

  #draw() {
    const shown = this.#results.classes.filter(({ classNum }) => this.#filter.shows(classNum));
    this.#lanes.replaceChildren(...shown.map((one) => this.#lane(one)));
    this.#names.replaceChildren(...shown.map(({ label }) => h("span", { class: "lane-name" }, label)));
    this.node.classList.toggle("timeline-empty", shown.length === 0);
    this.#place();
  }

  #lane({ classNum }) {
    const hasDetection = ({ detections }) => detections.some((one) => one.classNum === classNum && this.#filter.passes(one));
    const marks = this.#spans(this.#results.frames.filter(hasDetection).map(({ time }) => time)).map(([from, to]) => {
      const mark = h("span", { class: "mark" });
      setStyle(mark, "left", `${(100 * from) / this.#length}%`);
      setStyle(mark, "width", `${100 * Math.max(LEAST_SHARE, (to - from) / this.#length)}%`);
      return mark;
    });
    return h("div", { class: `lane ${hue(classNum)}` }, marks);
  }

  /** Merge times into spans; each sample covers its interval. */
  #spans(times) {
    const spans = [];
    for (const time of times) {
      const last = spans.at(-1);
      const end = Math.min(time + this.#interval, this.#length);
      if (last && time - last[2] <= this.#interval * JOINED) [last[1], last[2]] = [end, time];
      else spans.push([time, end, time]);
    }
    return spans;
  }

  #place() {
    const length = this.#length;
    setStyle(this.#head, "left", `${length ? Math.min(100, (100 * this.#time) / length) : 0}%`);
    setAttribute(this.#track, "aria-valuemin", 0);
    setAttribute(this.#track, "aria-valuemax", length.toFixed(1));
    setAttribute(this.#track, "aria-valuenow", Math.min(this.#time, length).toFixed(1));
    setAttribute(this.#track, "aria-valuetext", this.#valueText());
  }

  #valueText() {
    const frame = this.#results.nearest(this.#time, this.#interval / 2 + 0.05);
    const detections = (frame?.detections ?? []).filter((one) => this.#filter.passes(one));
    if (!detections.length) return `${clock(this.#time)}, no detections`;
    return `${clock(this.#time)}, ${plural(detections.length, "object")}: ${detections.map(({ label }) => label).join(", ")}`;
  }

  #key(event) {
    const actions = {
      ArrowRight: () => this.step(1),
      ArrowUp: () => this.step(1),
      ArrowLeft: () => this.step(-1),
      ArrowDown: () => this.step(-1),
      PageUp: () => this.#onSeek(Math.min(this.#length, this.#time + PAGE_SECONDS)),
      PageDown: () => this.#onSeek(Math.max(0, this.#time - PAGE_SECONDS)),
      Home: () => this.#onSeek(0),
      End: () => this.#onSeek(this.#length),
      " ": () => this.#onPlay(),
    };
    if (!(event.key in actions) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    actions[event.key]();
  }

  /** A click seeks to the mark under the pointer, or to the pointer; dragging follows it. */
  #grab(event) {
    if (event.button !== 0) return;
    this.#track.setPointerCapture(event.pointerId);
    const go = ({ clientX }) => this.#onSeek(this.#timeAt(clientX));
    const done = new AbortController();
    this.#track.addEventListener("pointermove", go, { signal: done.signal });
    for (const end of ["pointerup", "pointercancel"])
      this.#track.addEventListener(end, () => done.abort(), { signal: done.signal });
    go(event);
  }

  #timeAt(clientX) {
    const { left, width } = this.#track.getBoundingClientRect();
    const time = Math.min(1, Math.max(0, (clientX - left) / width)) * this.#length || 0;
    const reach = Math.max((SNAP_PIXELS / width) * this.#length, this.#interval / 2);
    const near = this.#finds().reduce(
      (best, one) => (Math.abs(one - time) < Math.abs(best - time) ? one : best),
      Infinity,
    );
    return Math.abs(near - time) <= reach ? near : time;
  }
}
