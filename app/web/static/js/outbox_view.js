/** The outbox for administrators: status, throughput, messages and repairs. */

import { announce, showError, showSuccess } from "./announce.js";
import { confirm } from "./confirm.js";
import { h, setAttribute, setText } from "./dom.js";
import { duration, moment, plural } from "./format.js";
import { MessageList } from "./message_list.js";
import { Plot } from "./plot.js";
import { poll } from "./poll.js";

const LOOK_AGAIN = 2;
const HELD_SHOWN = 5;

export function outboxView({ api, signal }) {
  return new OutboxView(api, signal);
}

class OutboxView {
  #api;
  #signal;
  #tiles = {
    pending: tile("Messages waiting"),
    oldest: tile("Oldest message's age"),
    parked: tile("Parked media items"),
    delivered: tile("Delivered, last hour"),
  };
  #circuit = h("div", { class: "circuit" });
  #circuitTitle = h("strong");
  #circuitText = h("span");
  #circuitState = null;
  #restored = null;
  #held = h("ul", { class: "held", "aria-label": "Held users" });
  #plot = new Plot();
  #messages;
  #poll;

  constructor(api, signal) {
    this.title = "Outbox";
    this.#api = api;
    this.#signal = signal;
    this.#circuit.append(this.#circuitTitle, this.#circuitText);
    this.#messages = new MessageList(api, signal, (body, question) => this.retry(body, question));
    const tiles = h(
      "dl",
      { class: "tiles" },
      Object.values(this.#tiles).map(({ node }) => node),
    );
    const intro = h("p", { class: "lead" }, "Messages from this service to the annotations service.");
    const head = h("div", { class: "section-head" }, h("div", {}, h("h1", { tabindex: "-1" }, "Outbox"), intro));
    this.node = h(
      "div",
      { class: "page" },
      head,
      this.#circuit,
      this.#held,
      tiles,
      this.#plot.node,
      this.#messages.node,
    );
    this.#poll = poll(() => this.#refresh(), {
      signal,
      failed: (problem) => problem.status === 401 || showError(problem),
    });
  }

  async #refresh() {
    const options = { signal: this.#signal };
    const [status, throughput] = await Promise.all([
      this.#api.get("/outbox", options),
      this.#api.get("/outbox/throughput", options),
      this.#messages.refresh(),
    ]);
    this.#showStatus(status);
    this.#plot.show(throughput.minutes);
    return LOOK_AGAIN;
  }

  #showStatus({ pending, parked, oldestAgeSeconds, deliveredLastHour, circuit, held, restoredAt }) {
    const tiles = this.#tiles;
    tiles.pending.show(pending.toLocaleString("en"), pending ? "wait" : null);
    tiles.oldest.show(oldestAgeSeconds === null ? "–" : duration(oldestAgeSeconds), null);
    tiles.parked.show(parked.toLocaleString("en"), parked ? "bad" : null);
    tiles.delivered.show(deliveredLastHour.toLocaleString("en"), null);
    this.#messages.parked = parked;
    this.#showCircuit(circuit);
    this.#showHeld(held);
    this.#showRestored(restoredAt);
  }

  #showRestored(restoredAt) {
    if ((this.#restored !== null) === (restoredAt !== null)) return;
    this.#restored?.remove();
    this.#restored = restoredAt === null ? null : restoredNotice(restoredAt);
    if (this.#restored) this.#circuit.after(this.#restored);
  }

  #showCircuit(circuit) {
    const [title, text] = circuitWords(circuit);
    const flows = circuit.state === "closed";
    // Open and half-open alternate during an outage, which is announced once.
    if (this.#circuitState !== null && this.#circuitState !== flows) announce(`${title}. ${text}`);
    this.#circuitState = flows;
    setAttribute(this.#circuit, "data-tone", flows ? "good" : "wait");
    setText(this.#circuitTitle, title);
    setText(this.#circuitText, text);
  }

  #showHeld(held) {
    const shown = held.slice(0, HELD_SHOWN).map((one) => h("li", {}, heldWords(one)));
    const more = held.length - HELD_SHOWN;
    if (more > 0) shown.push(h("li", {}, `${plural(more, "more user is held", "more users are held")}.`));
    this.#held.replaceChildren(...shown);
  }

  /** Make parked media items pending again, after a confirmation. */
  async retry(body, question) {
    if (!(await confirm({ title: "Try again?", text: question, yes: "Retry", signal: this.#signal }))) return;
    try {
      const { retried } = await this.#api.post("/outbox/retry", body, { signal: this.#signal });
      const count = Array.isArray(retried) ? retried.length : retried;
      showSuccess(count ? `${plural(count, "media item", "media items")} pending again` : "No parked media item matched");
      this.#poll();
    } catch (problem) {
      if (!this.#signal.aborted) showError(problem);
    }
  }
}

function restoredNotice(restoredAt) {
  return h(
    "div",
    { class: "circuit", "data-tone": "wait" },
    h("strong", {}, "The database was restored"),
    h("span", {}, `from an earlier copy, detected at ${moment(restoredAt)}. On the server, run`),
    h("code", {}, "flask outbox resend --missing"),
    h("span", {}, "and upload again what was uploaded since the copy."),
  );
}

function circuitWords({ state, since, retryAt, reason }) {
  if (state === "closed") return ["Circuit closed", "Messages are sent to the annotations service."];
  const why = sentence(reason ?? "The annotations service does not accept messages");
  const title = state === "open" ? "Circuit open" : "Circuit half-open";
  const doing = state === "open" ? "Messages wait." : "A probe is under way.";
  return [title, `${doing} ${why}${sinceWords(since)}${nextWords(retryAt)}`];
}

function heldWords({ userId, since, until, reason, waiting }) {
  const waits = `${plural(waiting, "message waits", "messages wait")}.`;
  return `User ${userId} is held: ${sentence(reason)} ${waits}${sinceWords(since)}${nextWords(until)}`;
}

function sinceWords(since) {
  return since ? ` For ${duration((Date.now() - Date.parse(since)) / 1000)}.` : "";
}

function nextWords(time) {
  const seconds = time ? (Date.parse(time) - Date.now()) / 1000 : null;
  if (seconds === null) return "";
  return seconds < 1 ? " A probe is due now." : ` Next probe in ${duration(seconds)}.`;
}

function sentence(text) {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

function tile(label) {
  const value = h("dd", { class: "tile-value" });
  const node = h("div", { class: "card tile" }, h("dt", {}, label), value);
  const show = (text, tone) => {
    setText(value, text);
    setAttribute(node, "data-tone", tone);
  };
  return { node, show };
}
