/** The frame that a picture or video fills: its proportions are the picture's, so that fractions of it are true. */

import { complain } from "./announce.js";
import { h, icon, setStyle } from "./dom.js";
import { bytes } from "./format.js";
import { sleep } from "./time.js";

/** How much larger than it is a small picture may be shown. */
const MOST_ENLARGED = 2;
const MOST_FAILURES = 8;

/** Give the frame the proportions of a picture of so many pixels; the style sheet fits it into the window. */
export function fitFrame(frame, width, height) {
  setStyle(frame, "--ratio", String(width / height));
  setStyle(frame, "--most", `${width * MOST_ENLARGED}px`);
  frame.classList.add("frame-fitted");
}

/**
 * Gives an element the media's address; `load(url)` is how. Where that fails for a while, because a link has run out,
 * all slots are taken or the network is away, it is tried again, and the user told in the end. `settled()` is to be
 * called when the element has loaded, `isUnusable()` at its `error`: it resolves to whether the bytes are there and
 * the browser has no use for them.
 */
export function keepLoaded(link, load, signal) {
  let failures = 0;

  /** Whether there is to be another try after this problem, once it is time for that. */
  const waitAfter = async (problem) => {
    failures += 1;
    if (failures > MOST_FAILURES || !(problem.passes || problem.status === 401)) {
      complain(problem);
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
    settled: () => (failures = 0),
    isUnusable: async () => {
      const problem = await link.trouble();
      if (problem === null) return true;
      if (await waitAfter(problem)) await again();
      return false;
    },
  };
}

/** What stands where a browser cannot show the file: `words` say so, and the file itself is there to take away. */
export function unshowable(media, link, words) {
  const extension = media.name.split(".").pop().toUpperCase();
  const download = async () => {
    try {
      h("a", { href: await link.renew(), download: media.name }).click();
    } catch (problem) {
      if (problem.status !== 401) complain(problem);
    }
  };
  const button = h("button", { class: "button button-primary", on: { click: download } });
  button.append(icon("download"), `Download (${bytes(media.sizeBytes)})`);
  return h(
    "div",
    { class: "unshowable" },
    icon(media.mediaType === "Video" ? "video" : "photo"),
    h("p", {}, `${words} (${extension}).`),
    button,
  );
}
