/** The media, newest first, live: rows change in place, so that neither the focus nor the place on the page is lost. */

import { complain } from "./announce.js";
import { h, icon, setAttribute, setText } from "./dom.js";
import { age, bytes, grouped, moment } from "./format.js";
import { poll } from "./poll.js";
import { mediaPath } from "./router.js";
import { badge, deliveryState, mediaState, showState, STATUSES } from "./states.js";
import { uploadPanel } from "./upload_panel.js";

const PAGE = 25;
/** As many of the newest are kept fresh; those behind them are shown as they were when asked for. */
const LIVE = 200;
const SOON = 1.5;
const LATER = 5;

export function listView({ api, uploads, signal }) {
  const filters = { status: "", type: "" };
  const list = new MediaList(api, filters, signal);
  const change = (name) => (event) => {
    filters[name] = event.target.value;
    list.restart();
  };
  const status = select("Status", [["", "Any status"], ...STATUSES], change("status"));
  const type = select(
    "Type",
    [
      ["", "Any type"],
      ["Image", "Photos"],
      ["Video", "Videos"],
    ],
    change("type"),
  );
  uploads.addEventListener("change", () => list.refresh(), { signal });

  const head = h(
    "div",
    { class: "section-head" },
    h("h1", { tabindex: "-1" }, "Media"),
    h("div", { class: "filters" }, status, type),
  );
  return { title: "Media", node: h("div", { class: "page" }, uploadPanel(uploads, signal), head, list.node) };
}

function select(label, options, change) {
  const choices = options.map(([value, text]) => h("option", { value }, text));
  return h(
    "label",
    { class: "field" },
    h("span", { class: "visually-hidden" }, label),
    h("select", { class: "select", on: { change } }, choices),
  );
}

class MediaList {
  #api;
  #filters;
  #signal;
  #rows = new Map();
  #cursor = null;
  #generation = 0;
  #body = h("tbody");
  #empty = h("p", { class: "empty", hidden: true });
  #more = h("button", { class: "button", hidden: true, on: { click: () => this.#loadMore() } }, "Load more");

  constructor(api, filters, signal) {
    this.#api = api;
    this.#filters = filters;
    this.#signal = signal;
    const columns = ["Name", "Status", "Added", "Delivery"].map((text) => h("th", { scope: "col" }, text));
    const table = h(
      "table",
      { class: "table stacked media-table" },
      h("caption", { class: "visually-hidden" }, "Media, newest first"),
    );
    table.append(h("thead", {}, h("tr", {}, columns)), this.#body);
    this.node = h("section", { class: "card table-card", "aria-label": "List of media" }, table, this.#empty);
    this.node.append(h("div", { class: "more" }, this.#more));
    this.refresh = poll(() => this.#look(), { signal, failed: (problem) => this.#failed(problem) });
  }

  /** Begin anew: the filters have changed. */
  restart() {
    this.#generation += 1;
    for (const row of this.#rows.values()) row.node.remove();
    this.#rows.clear();
    this.#cursor = null;
    this.refresh();
  }

  async #look() {
    const generation = this.#generation;
    const limit = Math.min(LIVE, Math.max(PAGE, this.#rows.size));
    const page = await this.#page({ limit });
    if (generation !== this.#generation) return 0;
    this.#merge(page);
    const moves = page.items.some(
      (media) => media.mediaStatus < 3 || (media.delivery.pending && !media.delivery.parked),
    );
    return moves ? SOON : LATER;
  }

  async #loadMore() {
    const generation = this.#generation;
    this.#more.disabled = true;
    try {
      const page = await this.#page({ limit: PAGE, cursor: this.#cursor });
      if (generation !== this.#generation) return;
      for (const media of page.items) this.#put(media, null);
      this.#turn(page.nextCursor);
    } catch (problem) {
      if (!this.#signal.aborted) complain(problem);
    } finally {
      this.#more.disabled = false;
    }
  }

  #page(query) {
    const wanted = Object.entries({ ...this.#filters, ...query }).filter(([, value]) => value !== "" && value !== null);
    return this.#api.get(`/media?${new URLSearchParams(wanted)}`, { signal: this.#signal });
  }

  /** The newest page over what is shown: new ones in front, changed ones in place, gone ones away. */
  #merge(page) {
    const fresh = new Set(page.items.map((media) => media.id));
    const shown = [...this.#rows.keys()];
    const last = shown.findLastIndex((id) => fresh.has(id));
    const isAll = page.nextCursor === null || last < 0; // else what is shown behind the last of them is older
    for (const [place, id] of shown.entries()) {
      if (!fresh.has(id) && (isAll || place < last)) this.#take(id);
    }
    let before = this.#body.firstElementChild;
    for (const media of page.items) {
      const row = this.#rows.get(media.id);
      if (row) before = row.node.nextElementSibling;
      this.#put(media, row ? null : before);
    }
    this.#order();
    if (isAll || this.#rows.size <= page.items.length) this.#turn(page.nextCursor);
    this.#sayEmpty();
  }

  #put(media, before) {
    const row = this.#rows.get(media.id) ?? new Row();
    if (!this.#rows.has(media.id)) {
      this.#rows.set(media.id, row);
      this.#body.insertBefore(row.node, before);
    }
    row.show(media);
  }

  #take(id) {
    this.#rows.get(id).node.remove();
    this.#rows.delete(id);
  }

  /** The map in the order of the table again, so that "the newest so many" can be counted off it. */
  #order() {
    const byNode = new Map([...this.#rows].map(([id, row]) => [row.node, [id, row]]));
    this.#rows = new Map([...this.#body.children].map((node) => byNode.get(node)));
  }

  #turn(cursor) {
    this.#cursor = cursor;
    this.#more.hidden = cursor === null;
    this.#sayEmpty();
  }

  #sayEmpty() {
    const filtered = this.#filters.status || this.#filters.type;
    this.#empty.hidden = this.#rows.size > 0;
    this.#body.parentElement.hidden = this.#rows.size === 0;
    setText(
      this.#empty,
      filtered ? "Nothing matches these filters." : "Nothing here yet. Upload the first photo or video above.",
    );
  }

  #failed(problem) {
    if (problem.status === 401) return;
    complain(problem);
  }
}

/** One media in the table. */
class Row {
  #kind = h("span", { class: "kind" });
  #name = h("a", { class: "row-link" });
  #facts = h("span", { class: "row-facts" });
  #status = badge(mediaState(1));
  #added = h("time");
  #delivery = badge({ text: "", tone: "calm", title: "" });
  #type = null;

  constructor() {
    const name = h(
      "th",
      { scope: "row", class: "cell-name" },
      this.#kind,
      h("span", { class: "name-lines" }, this.#name, this.#facts),
    );
    const cells = [
      h("td", { class: "cell-status" }, this.#status),
      h("td", { class: "cell-added" }, this.#added),
      h("td", { class: "cell-delivery" }, this.#delivery),
    ];
    this.node = h("tr", {}, name, cells);
  }

  show(media) {
    if (this.#type !== media.mediaType) {
      this.#type = media.mediaType;
      this.#kind.replaceChildren(icon(media.mediaType === "Video" ? "video" : "photo"));
      setAttribute(this.#name, "href", mediaPath(media.id));
    }
    setText(this.#name, media.name);
    setAttribute(this.#name, "title", media.name);
    setText(
      this.#facts,
      [media.mediaType === "Video" ? "Video" : "Photo", bytes(media.sizeBytes), progressWords(media)]
        .filter(Boolean)
        .join(" · "),
    );
    const state = mediaState(media.mediaStatus);
    showState(this.#status, { ...state, title: media.run?.error ?? "" });
    setAttribute(this.#added, "datetime", media.createdAt);
    setAttribute(this.#added, "title", moment(media.createdAt));
    setText(this.#added, age(media.createdAt));
    showState(this.#delivery, deliveryState(media.delivery));
  }
}

function progressWords({ run }) {
  if (run?.state !== "running" || !run.framesTotal) return "";
  return `frame ${grouped(run.framesDone)} of ${grouped(run.framesTotal)}`;
}
