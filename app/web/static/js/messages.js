/** Texts for messages to the annotations service and their outcomes. */

import { mediaState } from "./states.js";

const ENDS = {
  accepted: ["Accepted", "good"],
  duplicate: ["Already there", "good"],
  superseded: ["Superseded", "good"],
  skipped: ["Skipped", "calm"],
};
const VERDICTS = {
  delivered: "accepted",
  retry: "retry",
  retry_limited: "retry for a limited time",
  refused: "refused",
  park: "parked",
  hold: "user held",
  unfit: "service unfit",
};

export function kindWords({ kind, payload }) {
  const status = payload?.mediaStatus;
  if (kind === "create") return "Create";
  return status === undefined ? kind : `Status: ${mediaState(status).text}`;
}

/** A message's state. Of a parked item's messages only the first waiting one was refused; the others wait for it. */
export function messageState({ state, outcome, seq }, ackedSeq) {
  const unsettled = state === "parked" && seq === ackedSeq + 1 ? ["Parked", "bad"] : ["Waiting", "wait"];
  const [text, tone] = state === "delivered" ? endOf(outcome) : unsettled;
  return { text, tone, title: "" };
}

/** The text for the outcome of a message that no longer waits. */
export function endWords(outcome) {
  return endOf(outcome)[0];
}

/** The text for an attempt's verdict. */
export function verdictWords(verdict) {
  return VERDICTS[verdict] ?? verdict;
}

function endOf(outcome) {
  return ENDS[outcome] ?? [outcome ?? "Delivered", "good"];
}
