/** A video with boxes over the playing picture, and a timeline of its detections. */

import { showError } from "./announce.js";
import { Boxes } from "./boxes.js";
import { h, icon, setText } from "./dom.js";
import { clock } from "./format.js";
import { fitFrame, loadWithRetry, unsupportedNotice } from "./frame.js";
import { Timeline } from "./timeline.js";
import { Aim } from "./video_aim.js";

/** Tolerance for the rounding of players and containers when choosing the nearest sample. */
const SLACK_SECONDS = 0.05;
const DEFAULT_INTERVAL = 0.5;

/** `onShown(detections, time)` is called whenever the shown detections change. */
export class VideoStage {
  #media;
  #link;
  #results;
  #filter;
  #onShown;
  #signal;
  #boxes;
  #timeline;
  #frame = h("div", { class: "frame" });
  #video;
  #position = h("output", { class: "position" });
  #source;
  #time = 0;
  #showing = null;
  #playable = true;
  /** The first frame's time on the player's clock; recordings may begin after 0. */
  #start = 0;
  #knowsStart = false;
  #aim = null;

  constructor({ media, link, results, filter, onShown, signal }) {
    this.#media = media;
    this.#link = link;
    this.#results = results;
    this.#filter = filter;
    this.#onShown = onShown;
    this.#signal = signal;
    this.#boxes = new Boxes(signal);
    this.#timeline = new Timeline(results, filter, {
      signal,
      onSeek: (time) => this.#seek(time),
      onPlay: () => this.#togglePlay(),
    });
    this.#video = this.#makeVideo(media);
    this.#frame.append(this.#video, this.#boxes.node);
    this.node = h("figure", { class: "stage stage-video" }, this.#frame, this.#controls(), this.#timeline.node);
    const redraw = () => {
      this.#showing = null;
      this.#draw(this.#time);
    };
    results.addEventListener("change", redraw, { signal });
    filter.addEventListener("change", redraw, { signal });
    signal.addEventListener("abort", () => this.#stop());
    this.#source = loadWithRetry(link, (url) => this.#load(url), signal);
  }

  highlight(index) {
    this.#boxes.highlight(index);
  }

  #makeVideo(media) {
    const on = {
      loadedmetadata: () => this.#loaded(),
      error: () => this.#broken(),
      timeupdate: () => this.#draw(this.#video.currentTime - this.#start),
      seeking: () => this.#checkAim(),
      seeked: () => this.#draw(this.#video.currentTime - this.#start),
      durationchange: () => this.#timeline.setDuration(this.#video.duration - this.#start),
    };
    const video = h("video", { class: "picture", controls: true, playsinline: true, preload: "metadata", on });
    video.setAttribute("controlslist", "nofullscreen nodownload"); // the browser's full screen would not include the boxes
    video.setAttribute("aria-label", `The video ${media.name}`);
    if (video.requestVideoFrameCallback) this.#watchFrames(video);
    return video;
  }

  /** Called for each displayed frame, because `timeupdate` comes only four times a second. */
  #watchFrames(video) {
    const onFrame = (_now, { mediaTime }) => {
      if (this.#signal.aborted) return;
      if (!this.#knowsStart) this.#setStart(mediaTime);
      const time = mediaTime - this.#start;
      this.#aim = video.paused ? (this.#aim?.next(time) ?? null) : null;
      if (this.#aim) video.currentTime = this.#aim.at + this.#start;
      this.#draw(time);
      video.requestVideoFrameCallback(onFrame);
    };
    video.requestVideoFrameCallback(onFrame);
  }

  /** A seek that does not come from the aim is the user's. */
  #checkAim() {
    const isOurs = this.#aim && Math.abs(this.#video.currentTime - this.#start - this.#aim.at) < 0.0002;
    if (!isOurs) this.#aim = null;
  }

  #setStart(seconds) {
    this.#start = seconds;
    this.#knowsStart = true;
    this.#timeline.setDuration(this.#video.duration - seconds);
  }

  #controls() {
    const button = (name, label, click) => {
      const node = h("button", { class: "button button-small", on: { click } });
      node.append(icon(name), label);
      return node;
    };
    return h(
      "div",
      { class: "stage-controls" },
      button("previous", "Previous detection", () => this.#timeline.step(-1)),
      button("next", "Next detection", () => this.#timeline.step(1)),
      this.#position,
      button("full", "Full screen", () => this.#toggleFullScreen()),
    );
  }

  /** Load the video, or continue at the same position with a new link. */
  #load(url) {
    const wasPlaying = !this.#video.paused;
    this.#video.src = `${url}#t=${this.#time + this.#start}`;
    if (wasPlaying) this.#play();
  }

  #loaded() {
    this.#source.loaded();
    fitFrame(this.#frame, this.#video.videoWidth || 16, this.#video.videoHeight || 9);
    this.#timeline.setDuration(this.#video.duration - this.#start);
    this.#draw(this.#video.currentTime - this.#start);
  }

  async #broken() {
    if (!(await this.#source.isUnusable())) return;
    this.#playable = false;
    this.#frame.replaceChildren(unsupportedNotice(this.#media, this.#link, "This browser cannot play this video"));
    this.#draw(this.#time);
  }

  #seek(time) {
    this.#aim = this.#results.nearest(time, 0) ? new Aim(time) : null;
    if (this.#playable && this.#video.readyState > 0) {
      this.#video.currentTime = (this.#aim?.at ?? time) + this.#start;
    }
    this.#draw(time);
  }

  #togglePlay() {
    if (!this.#playable) return;
    if (this.#video.paused) this.#play();
    else this.#video.pause();
  }

  async #play() {
    try {
      await this.#video.play();
    } catch (error) {
      // A pause before the start is not an error; unsupported files are reported by the element's `error` event.
      if (!["AbortError", "NotSupportedError"].includes(error.name)) showError(error);
    }
  }

  async #toggleFullScreen() {
    try {
      if (document.fullscreenElement) await document.exitFullscreen();
      else await this.node.requestFullscreen();
    } catch (error) {
      showError(error);
    }
  }

  /** The run's sampling interval in seconds. */
  get #interval() {
    const { run } = this.#results;
    const { duration } = this.#video;
    if (run?.framesTotal > 1 && Number.isFinite(duration) && duration > 0) return duration / run.framesTotal;
    return DEFAULT_INTERVAL;
  }

  #draw(time) {
    this.#time = time;
    this.#timeline.setTime(time, this.#interval);
    setText(this.#position, clock(time));
    const frame = this.#results.nearest(time, this.#interval / 2 + SLACK_SECONDS);
    if (frame === this.#showing && frame !== null) return;
    this.#showing = frame;
    const shown = frame ? frame.detections.filter((one) => this.#filter.passes(one)) : [];
    this.#boxes.show(shown);
    this.#onShown(shown, frame ? frame.time : time);
  }

  #stop() {
    this.#video.pause();
    this.#video.removeAttribute("src");
    this.#video.load();
  }
}
