/**
 * Which resumable uploads are unfinished, remembered in this browser from one load of the page to the next: of a file
 * its name, size and time, and the id of its upload. Nothing of its content is kept.
 */

import { address } from "./address.js";

const PREFIX = "detections.upload:";
const FORGOTTEN_AFTER = 7 * 86400 * 1000; // far longer than a service keeps an upload

/** Where the upload of a file is remembered. Another user, or a file that was changed since, has another place. */
export function placeOf(userId, file) {
  const told = [address("/uploads"), userId, file.name, file.size, file.lastModified];
  return PREFIX + JSON.stringify(told);
}

/** The id of the upload, or `null`. */
export function recall(place) {
  return stored(() => JSON.parse(window.localStorage.getItem(place))?.id ?? null);
}

export function remember(place, id) {
  stored(() => {
    sweep();
    window.localStorage.setItem(place, JSON.stringify({ id, at: Date.now() }));
  });
}

export function forget(place) {
  stored(() => window.localStorage.removeItem(place));
}

function sweep() {
  for (const place of Object.keys(window.localStorage)) {
    if (place.startsWith(PREFIX) && !(JSON.parse(window.localStorage.getItem(place)).at > Date.now() - FORGOTTEN_AFTER))
      window.localStorage.removeItem(place);
  }
}

/** A browser that stores nothing, or has no room, costs the progress at the next reload and no more. */
function stored(action) {
  try {
    return action();
  } catch (error) {
    if (error instanceof DOMException || error instanceof SyntaxError) return null;
    throw error;
  }
}
