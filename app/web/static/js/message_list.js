/** The outbox's messages in one state, with actions for parked ones. */

import { showError } from "./announce.js";
import { h, setAttribute, setText } from "./dom.js";
import { age, moment, plural } from "./format.js";
import { endWords, kindWords } from "./messages.js";
import { historyPath } from "./router.js";

const PAGE = 50;
const LIVE = 200;
const STATES = [
  ["pending", "Waiting"],
  ["parked", "Parked"],
  ["delivered", "Delivered"],
];

/** `retry(body, question)` makes parked media items pending again after a confirmation. */
export class MessageList {
  #api;
  #signal;
  #retry;
  #state = "pending";
  #generation = 0;
  #rows = new Map();
  #cursor = null;
  #parked = 0;
  #body = h("tbody");
  #empty = h("p", { class: "empty" }, "Loading…");
  #actions;
  #all;
  #more = h("button", { class: "button", hidden: true, on: { click: () => this.#loadMore() } }, "Load more");

  constructor(api, signal, retry) {
    this.#api = api;
    this.#signal = signal;
    this.#retry = retry;
    this.#all = h(
      "button",
      { class: "button button-primary", on: { click: () => this.#retryAll() } },
      "Retry all parked",
    );
    this.#actions = h("div", { class: "bulk", hidden: true }, this.#all, this.#matching());
    const columns = ["Media", "Message", "Written", "Attempts", "Last response", ""];
    const head = columns.map((text) =>
      h("th", { scope: "col" }, text || h("span", { class: "visually-hidden" }, "Actions")),
    );
    const table = h(
      "table",
      { class: "table stacked message-table" },
      h("caption", { class: "visually-hidden" }, "Messages"),
    );
    table.append(h("thead", {}, h("tr", {}, head)), this.#body);
    const top = h("div", { class: "panel-head messages-head" }, h("h2", {}, "Messages"), this.#choice());
    this.node = h(
      "section",
      { class: "card table-card", "aria-label": "Messages" },
      top,
      this.#actions,
      table,
      this.#empty,
    );
    this.node.append(h("div", { class: "more" }, this.#more));
  }

  /** Set the number of parked media items, shown in the confirmation. */
  set parked(count) {
    this.#parked = count;
    setText(this.#all, `Retry all ${plural(count, "parked media item", "parked media items")}`);
    this.#actions.hidden = count === 0;
  }

  /** Reload the messages of the shown state. */
  async refresh() {
    const generation = this.#generation;
    const limit = Math.min(LIVE, Math.max(PAGE, this.#rows.size));
    const page = await this.#page(limit, null);
    if (generation !== this.#generation || this.#rows.size > LIVE) return;
    this.#show(page.items);
    this.#turn(page.nextCursor);
  }

  #choice() {
    const choose = (state) => () => {
      this.#state = state;
      this.#generation += 1;
      this.#show([]);
      setText(this.#empty, "Loading…");
      this.refresh().catch((problem) => this.#signal.aborted || showError(problem));
    };
    const options = STATES.map(([state, text]) => {
      const radio = h("input", {
        type: "radio",
        name: "state",
        value: state,
        checked: state === this.#state,
        on: { change: choose(state) },
      });
      return h("label", { class: "segment" }, radio, h("span", {}, text));
    });
    return h("fieldset", { class: "segments" }, h("legend", { class: "visually-hidden" }, "State"), options);
  }

  #matching() {
    const input = h("input", { class: "input", id: "reason", placeholder: "reason contains …", required: true });
    const submit = (event) => {
      event.preventDefault();
      const reason = input.value.trim();
      if (reason) this.#retry({ reason }, `Every parked media item whose reason contains “${reason}” is retried.`);
    };
    const button = h("button", { class: "button", type: "submit" }, "Retry matching");
    return h(
      "form",
      { class: "matching", on: { submit } },
      h("label", { for: "reason", class: "visually-hidden" }, "Text in the reason"),
      input,
      button,
    );
  }

  #retryAll() {
    const which = this.#parked === 1 ? "The one parked media item" : `All ${this.#parked.toLocaleString("en")} parked media items`;
    this.#retry(
      { all: true },
      `${which} will be retried in order as soon as the annotations service accepts messages.`,
    );
  }

  #page(limit, cursor) {
    const query = new URLSearchParams({ state: this.#state, limit, ...(cursor ? { cursor } : {}) });
    return this.#api.get(`/outbox/messages?${query}`, { signal: this.#signal });
  }

  async #loadMore() {
    const generation = this.#generation;
    this.#more.disabled = true;
    try {
      const page = await this.#page(PAGE, this.#cursor);
      if (generation !== this.#generation) return;
      for (const message of page.items) this.#put(message, null);
      this.#turn(page.nextCursor);
    } catch (problem) {
      if (!this.#signal.aborted) showError(problem);
    } finally {
      this.#more.disabled = false;
    }
  }

  #turn(cursor) {
    this.#cursor = cursor;
    this.#more.hidden = cursor === null;
  }

  /** Show these rows in this order; unmoved rows keep their focus. */
  #show(items) {
    const fresh = new Set(items.map(keyOf));
    for (const [key, row] of this.#rows) {
      if (!fresh.has(key)) {
        row.node.remove();
        this.#rows.delete(key);
      }
    }
    let place = this.#body.firstElementChild;
    for (const message of items) {
      const row = this.#put(message, place);
      if (row.node === place) place = place.nextElementSibling;
      else if (row.node.nextElementSibling !== place) this.#body.insertBefore(row.node, place);
    }
    this.#body.parentElement.hidden = this.#rows.size === 0;
    this.#empty.hidden = this.#rows.size > 0;
    const nothing = {
      pending: "No messages are waiting.",
      parked: "Nothing is parked.",
      delivered: "No delivered messages are stored.",
    };
    setText(this.#empty, nothing[this.#state]);
  }

  #put(message, before) {
    const key = keyOf(message);
    let row = this.#rows.get(key);
    if (!row) {
      row = new Row((id) => this.#retry({ mediaIds: [id] }, `The messages of media ${id} will be retried.`));
      this.#rows.set(key, row);
      this.#body.insertBefore(row.node, before);
    }
    row.show(message);
    return row;
  }
}

function keyOf({ mediaId, seq }) {
  return `${mediaId} ${seq}`;
}

class Row {
  #id = null;
  #media = h("a", { class: "row-link" });
  #message = h("td", { class: "cell-message" });
  #written = h("time");
  #attempts = h("td", { class: "cell-attempts" });
  #answer = h("td", { class: "cell-answer" });
  #button;

  constructor(retry) {
    this.#button = h("button", { class: "button button-small", on: { click: () => retry(this.#id) } }, "Retry");
    const media = h("th", { scope: "row", class: "cell-media" }, this.#media);
    const written = h("td", { class: "cell-written" }, this.#written);
    this.node = h(
      "tr",
      {},
      media,
      this.#message,
      written,
      this.#attempts,
      this.#answer,
      h("td", { class: "cell-actions" }, this.#button),
    );
  }

  show(message) {
    if (this.#id !== message.mediaId) {
      this.#id = message.mediaId;
      setText(this.#media, message.mediaId);
      setAttribute(this.#media, "href", historyPath(message.mediaId));
      setAttribute(this.#button, "aria-label", `Retry ${message.mediaId}`);
    }
    setText(this.#message, `${message.seq}. ${kindWords(message)}`);
    setAttribute(this.#written, "datetime", message.createdAt);
    setAttribute(this.#written, "title", moment(message.createdAt));
    setText(this.#written, age(message.createdAt));
    setText(this.#attempts, message.attempts ? String(message.attempts) : "");
    setText(this.#answer, message.state === "delivered" ? endWords(message.outcome) : (message.lastError ?? ""));
    setAttribute(this.#answer, "title", this.#answer.textContent || null);
    this.#button.hidden = message.state !== "parked" || message.lastError === null;
  }
}
