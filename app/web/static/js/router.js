/** Routing by the address's hash, so that each view has a link and the back button works. */

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

/** Return `{name, id}` for a hash; unknown ones give the list. */
export function route(hash) {
  for (const [pattern, name] of ROUTES) {
    const match = pattern.exec(hash);
    if (match) return { name, id: match[1] ?? null };
  }
  return { name: "list", id: null };
}
