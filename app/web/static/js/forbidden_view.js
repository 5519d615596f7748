/** Shown in place of a view that is for administrators only. */

import { h } from "./dom.js";
import { LIST_PATH } from "./router.js";

export function forbiddenView() {
  const text = "Your token is not an administrator's. Ask the issuer for another one, or return to the media.";
  const back = h("a", { class: "button", href: LIST_PATH }, "All media");
  const card = h(
    "section",
    { class: "card panel" },
    h("h1", { tabindex: "-1" }, "For administrators"),
    h("p", {}, text),
    h("p", {}, back),
  );
  return { title: "For administrators", node: h("div", { class: "page" }, card) };
}
