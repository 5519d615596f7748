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
 * Gives the element the media's address; `load` is how. Where that fails for a while, because a link has run out, all
 * seats are taken or the network is away, it is tried again. Returns what to do at the element's `error`, which
 * resolves to whether the browser has no use for the bytes.
 */
export function keepLoaded(link, load, signal) {
  let failures = 0;
  const again = async () => {
    try {
      load(await link.renew());
    } catch (problem) {
      if (!signal.aborted) complain(problem);
    }
  };
  again();
  return {
    settled: () => (failures = 0),
    isUnusable: async () => {
      const problem = await link.trouble();
      if (problem === null) return true;
      failures += 1;
      if (failures > MOST_FAILURES) complain(problem);
      else {
        await sleep(Math.max(problem.retryAfter ?? 0, failures - 1), signal);
        await again();
      }
      return false;
    },
  };
}

/** What stands where a browser cannot show the file: why, and the file itself to take away. */
export function unshowable(media, link, explanation) {
  const fetchIt = async (event) => {
    event.preventDefault();
    const anchor = h("a", { href: await link.renew(), download: media.name });
    anchor.click();
  };
  const button = h("a", { class: "button button-primary", href: "#", role: "button", on: { click: fetchIt } });
  button.append(icon("download"), `Download (${bytes(media.sizeBytes)})`);
  return h(
    "div",
    { class: "unshowable" },
    icon(media.mediaType === "Video" ? "video" : "photo"),
    h("p", {}, explanation),
    button,
  );
}
