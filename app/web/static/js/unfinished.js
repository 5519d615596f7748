/**
 * Unfinished resumable uploads, saved in this browser across page loads: a file's name, size and
 * modification time, and the id of its upload. Nothing of the content is stored.
 */

import { address } from "./address.js";

const PREFIX = "detections.upload:";
const FORGOTTEN_AFTER = 7 * 86400 * 1000; // far longer than the service keeps an upload

/** Return the storage key for the upload of a file; it depends on the user and on the file's version. */
export function storageKey(userId, file) {
  const parts = [address("/uploads"), userId, file.name, file.size, file.lastModified];
  return PREFIX + JSON.stringify(parts);
}

/** Return the saved upload's id, or `null`. */
export function loadSaved(key) {
  return tryStorage(() => JSON.parse(window.localStorage.getItem(key))?.id ?? null);
}

export function save(key, id) {
  tryStorage(() => {
    sweep();
    window.localStorage.setItem(key, JSON.stringify({ id, at: Date.now() }));
  });
}

export function deleteSaved(key) {
  tryStorage(() => window.localStorage.removeItem(key));
}

function sweep() {
  for (const key of Object.keys(window.localStorage)) {
    if (key.startsWith(PREFIX) && !(JSON.parse(window.localStorage.getItem(key)).at > Date.now() - FORGOTTEN_AFTER))
      window.localStorage.removeItem(key);
  }
}

/** Run a storage operation; failures only cost the progress at the next reload. */
function tryStorage(action) {
  try {
    return action();
  } catch (error) {
    if (error instanceof DOMException || error instanceof SyntaxError) return null;
    throw error;
  }
}
