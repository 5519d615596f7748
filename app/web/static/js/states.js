/** Names of states and their tones: `calm`, `busy`, `good`, `wait` or `bad`. */

import { h, setAttribute, setText } from "./dom.js";
import { moment, rough, secondsSince } from "./format.js";

const MEDIA = {
  1: ["New", "calm"],
  2: ["Processing", "busy"],
  3: ["Processed", "good"],
  6: ["Error", "bad"],
};

/** The statuses that this service sets, with their names. */
export const STATUSES = Object.entries(MEDIA).map(([value, [name]]) => [value, name]);

export function mediaState(status) {
  const [text, tone] = MEDIA[status] ?? [`Status ${status}`, "calm"];
  return { text, tone, title: "" };
}

/** The state of a media item's delivery to the annotations service. */
export function deliveryState(delivery) {
  const { pending, delivered, parked, attempts, lastError, waiting } = delivery;
  if (parked) return { text: "Parked", tone: "bad", title: lastError ?? "" };
  if (pending === 0) {
    if (delivered === 0) return { text: "Nothing to deliver", tone: "calm", title: "" };
    return { text: "Delivered", tone: "good", title: "" };
  }
  if (!waiting) return { text: "Waiting", tone: "wait", title: lastError ?? "" };
  const seconds = secondsSince(waiting.since);
  if (waiting.sending && attempts === 0) return { text: "Being delivered", tone: "busy", title: "" };
  const since = seconds < 2 ? "Waiting" : `Waiting for ${rough(seconds)}`;
  return { text: since, tone: "wait", title: lastError ?? `since ${moment(waiting.since)}` };
}

/** Return a badge for a state; `showState` updates it. */
export function badge(state) {
  const node = h("span", { class: "badge" });
  showState(node, state);
  return node;
}

export function showState(node, { text, tone, title }) {
  setAttribute(node, "data-tone", tone);
  setAttribute(node, "title", title || null);
  setText(node, text);
}
