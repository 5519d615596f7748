/** A media item's record and the delivery of its messages. */

import { h, showFacts } from "./dom.js";
import { bytes, duration, moment, secondsSince } from "./format.js";
import { historyPath } from "./router.js";
import { badge, deliveryState, showState } from "./states.js";

export class DetailPanel {
  #admin;
  #record = h("dl", { class: "facts" });
  #delivery = h("dl", { class: "facts" });
  #state = badge({ text: "", tone: "calm", title: "" });
  #link = h("a", { class: "button button-small", hidden: true }, "Messages");

  /** `admin` is whether the user may read the messages. */
  constructor(admin) {
    this.#admin = admin;
    const head = h("div", { class: "panel-head" }, h("h2", {}, "Delivery"), this.#link);
    this.node = h(
      "div",
      { class: "panels" },
      h("section", { class: "card panel", "aria-label": "Delivery" }, head, h("p", {}, this.#state), this.#delivery),
      h("section", { class: "card panel", "aria-label": "Record" }, h("h2", {}, "Record"), this.#record),
    );
  }

  show(media) {
    showFacts(this.#record, recordFacts(media));
    showFacts(this.#delivery, deliveryFacts(media.delivery));
    showState(this.#state, { ...deliveryState(media.delivery), title: "" });
    this.#link.hidden = !this.#admin;
    this.#link.setAttribute("href", historyPath(media.id));
  }
}

function recordFacts(media) {
  return [
    ["Id", h("code", {}, media.id)],
    ["Type", media.mediaType === "Video" ? "Video" : "Photo"],
    ["Size", `${bytes(media.sizeBytes)} (${media.sizeBytes.toLocaleString("en")} bytes)`],
    ["Added", moment(media.createdAt)],
    ["By", media.userId],
    ["Checksum", media.checksum ? h("code", {}, media.checksum) : "none"],
  ];
}

function deliveryFacts({ pending, delivered, attempts, nextAttemptAt, lastError, waiting, parked }) {
  const rows = [["Messages", `${delivered} delivered, ${pending} waiting`]];
  if (waiting?.parkedAt) rows.push(["Parked", moment(waiting.parkedAt)]);
  else if (waiting) rows.push(["Waiting", `for ${duration(secondsSince(waiting.since))}`]);
  if (attempts) rows.push(["Attempts", String(attempts)]);
  if (waiting?.lastStatus) rows.push(["Last response", `HTTP ${waiting.lastStatus}`]);
  if (lastError) rows.push([parked ? "Reason" : "Last error", lastError]);
  if (nextAttemptAt && pending && !parked) rows.push(["Next attempt", moment(nextAttemptAt)]);
  return rows;
}
