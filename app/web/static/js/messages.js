/** What a message to the annotations service says, in words. */

import { mediaState } from "./states.js";

export function kindWords({ kind, payload }) {
  const status = payload?.mediaStatus;
  if (kind === "create") return "Create";
  return status === undefined ? kind : `Status: ${mediaState(status).text}`;
}
