/** One media item: its picture or video with detections, its run, record and delivery. */

import { announce, showError } from "./announce.js";
import { DetailPanel } from "./detail_panel.js";
import { h, icon, setText } from "./dom.js";
import { follow } from "./events.js";
import { Filter } from "./filter.js";
import { FilterPanel } from "./filter_panel.js";
import { DetectionList } from "./detection_list.js";
import { poll } from "./poll.js";
import { Results } from "./results.js";
import { LIST_PATH } from "./router.js";
import { RunPanel } from "./run_panel.js";
import { SignedLink } from "./signed_link.js";
import { badge, mediaState, showState } from "./states.js";
import { PhotoStage } from "./photo_stage.js";
import { VideoStage } from "./video_stage.js";

const LOOK_AGAIN = 3;

export function mediaView({ api, session, id, signal }) {
  return new MediaView(api, session, id, signal);
}

class MediaView {
  #api;
  #id;
  #signal;
  #admin;
  #media = null;
  #stage = null;
  #following = false;
  #results = new Results();
  #filter = new Filter();
  #heading = h("h1", { tabindex: "-1" }, "Loading…");
  #status = badge({ text: "", tone: "calm", title: "" });
  #stagePlace = h("div", { class: "stage-place" });
  #side = h("div", { class: "media-side", hidden: true });
  #detections = new DetectionList((index) => this.#stage?.highlight(index));
  #run = new RunPanel(() => this.#runAgain());
  #detail = null;
  #poll;

  constructor(api, session, id, signal) {
    this.#api = api;
    this.#id = id;
    this.#signal = signal;
    this.#admin = session.user.admin;
    this.#detail = new DetailPanel(this.#admin);
    this.title = `Media ${id}`;
    const back = h("a", { href: LIST_PATH, class: "back" }, icon("back"), "All media");
    const head = h(
      "div",
      { class: "media-head" },
      back,
      h("div", { class: "media-title" }, this.#heading, this.#status),
    );
    const filters = new FilterPanel(this.#filter, this.#results, signal);
    this.#side.append(filters.node, this.#detections.node, this.#run.node, this.#detail.node);
    const grid = h("div", { class: "media-grid" }, this.#stagePlace, this.#side);
    this.node = h("div", { class: "page page-wide" }, head, grid);
    this.#poll = poll(() => this.#refresh(), { signal, failed: (problem) => this.#failed(problem) });
  }

  async #refresh() {
    const media = await this.#api.get(`/media/${this.#id}`, { signal: this.#signal });
    const first = this.#media === null;
    const earlier = this.#media?.run;
    this.#show(media);
    if (first) this.#setStage(media);
    if (media.run === null) return LOOK_AGAIN;
    const isNews = earlier?.id !== media.run.id || !ended(earlier);
    if (!ended(media.run)) this.#follow();
    else if (isNews && !this.#following) await this.#loadResults();
    return LOOK_AGAIN;
  }

  #show(media) {
    this.#media = media;
    this.title = media.name;
    document.title = `${media.name} · Detections`;
    setText(this.#heading, media.name);
    showState(this.#status, mediaState(media.mediaStatus));
    this.#run.show(media);
    this.#detail.show(media);
    this.#side.hidden = false;
  }

  #setStage(media) {
    const Stage = media.mediaType === "Video" ? VideoStage : PhotoStage;
    const link = new SignedLink(this.#api, media.id, this.#signal);
    const onShown = (detections, time) => this.#detections.show(detections, time);
    this.#stage = new Stage({
      media,
      link,
      results: this.#results,
      filter: this.#filter,
      onShown,
      signal: this.#signal,
    });
    this.#stagePlace.replaceChildren(this.#stage.node);
  }

  /** Load the last finished run's result; without such a run there is nothing to show. */
  async #loadResults() {
    try {
      const { run, annotations } = await this.#api.get(`/media/${this.#id}/detections`, { signal: this.#signal });
      this.#results.replace(run, annotations);
    } catch (problem) {
      if (problem.status !== 404) throw problem;
    }
  }

  /** Follow a run: its frames appear as they are processed. */
  async #follow() {
    if (this.#following) return;
    this.#following = true;
    try {
      const record = await follow(this.#api, this.#id, {
        signal: this.#signal,
        on: (name, data) => this.#event(name, data),
      });
      this.#show(record);
      announce(record.run?.state === "failed" ? `The run failed: ${record.run.error}` : "The run is done");
      await this.#loadResults();
    } catch (problem) {
      if (!this.#signal.aborted) this.#failed(problem);
    } finally {
      this.#following = false;
    }
  }

  #event(name, data) {
    if (name === "status") this.#show({ ...this.#media, mediaStatus: data.mediaStatus });
    else if (name === "progress") this.#show({ ...this.#media, run: data });
    else if (name === "annotations") this.#results.extend(data.runId, data.annotations, data.restart);
  }

  async #runAgain() {
    try {
      const options = { signal: this.#signal, headers: { Prefer: "respond-async" } };
      const { media } = await this.#api.post(`/detect/${this.#id}`, undefined, options);
      this.#show(media);
      announce("A new run was started");
      this.#follow();
    } catch (problem) {
      if (!this.#signal.aborted) this.#failed(problem);
    }
  }

  #failed(problem) {
    if (problem.status === 401) return;
    if (this.#media === null) {
      setText(this.#heading, problem.title ?? "The media item cannot be shown");
      this.#stagePlace.replaceChildren(h("p", { class: "lead" }, problem.detail ?? problem.message));
      return;
    }
    showError(problem);
  }
}

function ended(run) {
  return run?.state === "done" || run?.state === "failed";
}
