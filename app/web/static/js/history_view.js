/** All messages of one media item with their attempts, and actions for parked ones. */

import { showError, showSuccess } from "./announce.js";
import { confirm } from "./confirm.js";
import { h, icon, setText, showFacts } from "./dom.js";
import { moment, plural } from "./format.js";
import { kindWords, messageState, verdictWords } from "./messages.js";
import { poll } from "./poll.js";
import { mediaPath, OUTBOX_PATH } from "./router.js";
import { badge } from "./states.js";

const LOOK_AGAIN = 3;

export function historyView({ api, id, signal }) {
  return new HistoryView(api, id, signal);
}

class HistoryView {
  #api;
  #id;
  #signal;
  #facts = h("dl", { class: "facts" });
  #list = h("ol", { class: "history" });
  #notice = h("p", { class: "notice" }, "Loading…");
  #actions = h("div", { class: "panel-actions", hidden: true });
  #shown = "";
  #poll;

  constructor(api, id, signal) {
    this.title = `Messages of ${id}`;
    this.#api = api;
    this.#id = id;
    this.#signal = signal;
    this.#actions.append(
      h("button", { class: "button button-primary", on: { click: () => this.#retry() } }, "Retry"),
      h("button", { class: "button", on: { click: () => this.#skip() } }, "Skip this message"),
    );
    const back = h("a", { href: OUTBOX_PATH, class: "back" }, icon("back"), "Outbox");
    const heading = h("h1", { tabindex: "-1" }, "Messages of ", h("code", {}, id));
    const again = h("button", { class: "button", on: { click: () => this.#resend() } }, "Send again");
    const open = h("a", { class: "button", href: mediaPath(id) }, "Show the media item");
    const head = h("div", { class: "section-head" }, heading, h("div", { class: "filters" }, this.#actions, again, open));
    const card = h("section", { class: "card panel", "aria-label": "Delivery" }, this.#notice, this.#facts);
    this.node = h("div", { class: "page" }, back, head, card, this.#list);
    this.#poll = poll(() => this.#refresh(), { signal, failed: (problem) => this.#failed(problem) });
  }

  async #refresh() {
    this.#show(await this.#api.get(`/outbox/media/${this.#id}`, { signal: this.#signal }));
    return LOOK_AGAIN;
  }

  #show(history) {
    const shown = JSON.stringify(history);
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#notice.hidden = true;
    this.#actions.hidden = history.parkedAt === null;
    showFacts(this.#facts, facts(history));
    this.#list.replaceChildren(...history.messages.map((message) => messageCard(message, history.ackedSeq)));
  }

  async #retry() {
    const text = "Its messages will be sent in order, starting with the refused one.";
    if (!(await confirm({ title: "Try again?", text, yes: "Retry", signal: this.#signal }))) return;
    await this.#do(
      () => this.#api.post("/outbox/retry", { mediaIds: [this.#id] }, { signal: this.#signal }),
      "It is pending again",
    );
  }

  async #skip() {
    const text =
      "This message will never be sent, and the messages after it continue. This cannot be undone.";
    if (!(await confirm({ title: "Skip this message?", text, yes: "Skip", danger: true, signal: this.#signal })))
      return;
    await this.#do(
      () => this.#api.post(`/outbox/media/${this.#id}/skip`, undefined, { signal: this.#signal }),
      "The message was skipped",
    );
  }

  async #resend() {
    const text =
      "If the annotations service lacks this media item or is behind, a create and the statuses up to the current " +
      "one are sent. They replace waiting messages.";
    if (!(await confirm({ title: "Send again?", text, yes: "Send again", signal: this.#signal }))) return;
    await this.#do(
      () => this.#api.post(`/outbox/media/${this.#id}/resend`, undefined, { signal: this.#signal }),
      resentWords,
    );
  }

  async #do(act, said) {
    try {
      const answer = await act();
      showSuccess(typeof said === "function" ? said(answer) : said);
    } catch (problem) {
      if (!this.#signal.aborted) showError(problem);
    }
    this.#poll();
  }

  #failed(problem) {
    if (problem.status === 401) return;
    if (this.#shown) showError(problem);
    else setText(this.#notice, problem.message);
  }
}

function resentWords({ messages, reason }) {
  if (messages) return `${plural(messages, "message")} will be sent: ${reason}`;
  return reason ? `Nothing is sent: ${reason}` : "Nothing is sent: the annotations service is up to date";
}

function facts(history) {
  const rows = [["Messages", `${history.ackedSeq} of ${history.lastSeq} completed`]];
  if (history.waitingSince) rows.push(["Waiting since", moment(history.waitingSince)]);
  if (history.nextAttemptAt) rows.push(["Next attempt", moment(history.nextAttemptAt)]);
  if (history.parkedAt) rows.push(["Parked", moment(history.parkedAt)], ["Reason", history.parkReason ?? ""]);
  if (history.lastStatus) rows.push(["Last response", `HTTP ${history.lastStatus}`]);
  if (history.lastError && !history.parkedAt) rows.push(["Last error", history.lastError]);
  return rows;
}

function messageCard(message, ackedSeq) {
  const state = badge(messageState(message, ackedSeq));
  const head = h("div", { class: "panel-head" }, h("h2", {}, `${message.seq}. ${kindWords(message)}`), state);
  const when = `Written ${moment(message.createdAt)}${message.deliveredAt ? ` · completed ${moment(message.deliveredAt)}` : ""}`;
  const body = message.attempts.length
    ? attemptTable(message)
    : h("p", { class: "empty-small" }, message.state === "delivered" ? "No attempts are stored." : "Not attempted yet.");
  return h("li", { class: "card panel" }, head, h("p", { class: "when" }, when), body);
}

function attemptTable({ seq, attempts }) {
  const columns = ["At", "Duration", "Response", "Verdict", "Detail"].map((text) => h("th", { scope: "col" }, text));
  const rows = attempts.map((attempt) =>
    h(
      "tr",
      {},
      h("td", { class: "cell-at" }, h("time", { datetime: attempt.at }, moment(attempt.at))),
      h("td", {}, `${Math.round(attempt.milliseconds)} ms`),
      h("td", {}, attempt.status === null ? "no response" : String(attempt.status)),
      h("td", {}, verdictWords(attempt.verdict)),
      h(
        "td",
        { class: "cell-detail" },
        attempt.detail ?? "",
        attempt.excerpt ? h("code", { class: "excerpt" }, attempt.excerpt) : null,
      ),
    ),
  );
  const caption = h("caption", { class: "visually-hidden" }, `${plural(attempts.length, "attempt")} of message ${seq}`);
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": `Attempts of message ${seq}` },
    h(
      "table",
      { class: "table stacked attempts" },
      caption,
      h("thead", {}, h("tr", {}, columns)),
      h("tbody", {}, rows),
    ),
  );
}
