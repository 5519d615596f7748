/** The frame that a picture or video fills: its proportions are the picture's, so that fractions of it are true. */

import { h, icon, setStyle } from "./dom.js";
import { bytes } from "./format.js";

/** How much larger than it is a small picture may be shown. */
const MOST_ENLARGED = 2;

/** Give the frame the proportions of a picture of so many pixels; the style sheet fits it into the window. */
export function fitFrame(frame, width, height) {
  setStyle(frame, "--ratio", String(width / height));
  setStyle(frame, "--most", `${width * MOST_ENLARGED}px`);
  frame.classList.add("frame-fitted");
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
