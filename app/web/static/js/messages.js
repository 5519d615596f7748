/** What a message to the annotations service says, and what became of it, in words. */

import { mediaState } from "./states.js";

const ENDS = {
  accepted: ["Accepted", "good"],
  duplicate: ["Already there", "good"],
  superseded: ["Superseded", "good"],
  skipped: ["Skipped", "calm"],
};
const VERDICTS = {
  delivered: "accepted",
  retry: "try again",
  retry_limited: "try again, for a limited time",
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

/** How a message stands. Of a parked media's only the first that is not settled was refused: the others wait for it. */
export function messageState({ state, outcome, seq }, ackedSeq) {
  const unsettled = state === "parked" && seq === ackedSeq + 1 ? ["Parked", "bad"] : ["Waiting", "wait"];
  const [text, tone] = state === "delivered" ? endOf(outcome) : unsettled;
  return { text, tone, title: "" };
}

/** What became of a message that no longer waits. */
export function endWords(outcome) {
  return endOf(outcome)[0];
}

/** What an answer meant for its message. */
export function verdictWords(verdict) {
  return VERDICTS[verdict] ?? verdict;
}

function endOf(outcome) {
  return ENDS[outcome] ?? [outcome ?? "Delivered", "good"];
}
