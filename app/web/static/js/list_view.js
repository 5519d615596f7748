/** The live list of media items, newest first. Rows change in place, so that focus and scroll position are kept. */

import { showError } from "./announce.js";
import { h, icon, setAttribute, setText } from "./dom.js";
import { age, bytes, grouped, moment } from "./format.js";
import { poll } from "./poll.js";
import { mediaPath } from "./router.js";
import { badge, deliveryState, mediaState, showState, STATUSES } from "./states.js";
import { uploadPanel } from "./upload_panel.js";

const PAGE = 25;
/** How many of the newest items are refreshed; older ones are shown as they were loaded. */
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
    this.refresh = poll(() => this.#refresh(), { signal, failed: (problem) => this.#failed(problem) });
  }

  /** Reload, because the filters have changed. */
  restart() {
    this.#generation += 1;
    for (const row of this.#rows.values()) row.node.remove();
    this.#rows.clear();
    this.#cursor = null;
    this.refresh();
  }

  async #refresh() {
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
      if (!this.#signal.aborted) showError(problem);
    } finally {
      this.#more.disabled = false;
    }
  }

  #page(query) {
    const wanted = Object.entries({ ...this.#filters, ...query }).filter(([, value]) => value !== "" && value !== null);
    return this.#api.get(`/media?${new URLSearchParams(wanted)}`, { signal: this.#signal });
  }

  /** Merge the newest page into the list: add new items in front, update changed ones, remove deleted ones. */
  #merge(page) {
    const fresh = new Set(page.items.map((media) => media.id));
    const shown = [...this.#rows.keys()];
    const last = shown.findLastIndex((id) => fresh.has(id));
    const isAll = page.nextCursor === null || last < 0; // otherwise the rows after the page's last item are older
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

  /** Restore the map's order to that of the table, so that the newest items can be counted. */
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
      filtered ? "No media item matches these filters." : "No media items yet. Upload a photo or video above.",
    );
  }

  #failed(problem) {
    if (problem.status === 401) return;
    showError(problem);
  }
}

/** One row of the table. */
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
