/** Which view is shown: the address's hash decides, so that every view has a link and the back button works. */

const ROUTES = [
  [/^#\/media$/, "list"],
  [/^#\/media\/([0-9a-f]{16})$/, "media"],
  [/^#\/outbox$/, "outbox"],
  [/^#\/outbox\/([0-9a-f]{16})$/, "history"],
];

export const LIST_PATH = "#/media";
export const OUTBOX_PATH = "#/outbox";

export function mediaPath(id) {
  return `#/media/${id}`;
}

export function historyPath(id) {
  return `#/outbox/${id}`;
}

/** `{name, id}` for a hash; what leads nowhere leads to the list. */
export function route(hash) {
  for (const [pattern, name] of ROUTES) {
    const found = pattern.exec(hash);
    if (found) return { name, id: found[1] ?? null };
  }
  return { name: "list", id: null };
}
