/** The frame around a picture or video, with its proportions, so that fractions of it are exact. */

import { showError } from "./announce.js";
import { h, icon, setStyle } from "./dom.js";
import { bytes } from "./format.js";
import { sleep } from "./time.js";

/** How much a small picture may be enlarged. */
const MOST_ENLARGED = 2;
const MOST_FAILURES = 8;

/** Set the frame's proportions from a size in pixels; the style sheet fits it into the window. */
export function fitFrame(frame, width, height) {
  setStyle(frame, "--ratio", String(width / height));
  setStyle(frame, "--most", `${width * MOST_ENLARGED}px`);
  frame.classList.add("frame-fitted");
}

/**
 * Loads a media item's content into an element with `load(url)`. Transient failures, because a link has expired,
 * all slots are taken or the network is unavailable, are retried and finally reported. Call `loaded()` when the
 * element has loaded, and `isUnusable()` at its `error` event: it resolves to whether the content is available but
 * not supported by the browser.
 */
export function loadWithRetry(link, load, signal) {
  let failures = 0;

  /** Wait for the next attempt after a problem; resolves to whether there is one. */
  const waitAfter = async (problem) => {
    failures += 1;
    if (failures > MOST_FAILURES || !(problem.passes || problem.status === 401)) {
      showError(problem);
      return false;
    }
    await sleep(Math.max(problem.retryAfter ?? 0, failures - 1), signal);
    return true;
  };
  const again = async () => {
    try {
      load(await link.renew());
    } catch (problem) {
      signal.throwIfAborted();
      if (problem.status !== 401 && (await waitAfter(problem))) await again();
    }
  };

  again();
  return {
    loaded: () => (failures = 0),
    isUnusable: async () => {
      const problem = await link.trouble();
      if (problem === null) return true;
      if (await waitAfter(problem)) await again();
      return false;
    },
  };
}

/** Return a notice that the browser cannot show the file, with `text` and a download button. */
export function unsupportedNotice(media, link, text) {
  const extension = media.name.split(".").pop().toUpperCase();
  const download = async () => {
    try {
      h("a", { href: await link.renew(), download: media.name }).click();
    } catch (problem) {
      if (problem.status !== 401) showError(problem);
    }
  };
  const button = h("button", { class: "button button-primary", on: { click: download } });
  button.append(icon("download"), `Download (${bytes(media.sizeBytes)})`);
  return h(
    "div",
    { class: "unshowable" },
    icon(media.mediaType === "Video" ? "video" : "photo"),
    h("p", {}, `${text} (${extension}).`),
    button,
  );
}
