/** The bar at the top: the current view, the user, and uploads under way. */

import { address } from "./address.js";
import { h, setAttribute, setText } from "./dom.js";
import { plural } from "./format.js";
import { LIST_PATH, OUTBOX_PATH } from "./router.js";

export class Bar {
  #node;
  #session;
  #links;
  #user;
  #busy;

  constructor(node, session, uploads) {
    this.#node = node;
    this.#session = session;
    this.#links = {
      list: h("a", { href: LIST_PATH, class: "bar-link" }, "Media"),
      outbox: h("a", { href: OUTBOX_PATH, class: "bar-link" }, "Outbox"),
    };
    this.#user = h("span", { class: "bar-user" });
    this.#busy = h("a", { href: LIST_PATH, class: "bar-busy", hidden: true });
    const logo = h("img", { src: address("/static/favicon.svg"), alt: "", width: 28, height: 28 });
    node.append(
      h("a", { href: LIST_PATH, class: "brand", "aria-label": "Detections" }, logo, h("span", {}, "Detections")),
      h("nav", { class: "bar-nav", "aria-label": "Views" }, this.#links.list, this.#links.outbox),
      this.#busy,
      this.#user,
      h("button", { class: "button button-quiet", on: { click: () => session.end("") } }, "Sign out"),
    );
    uploads.addEventListener("change", () => this.#count(uploads.active.length));
  }

  /** Show the bar for the view of that name. */
  show(name) {
    const { user } = this.#session;
    this.#node.hidden = !user;
    if (!user) return;
    setText(this.#user, user.userId);
    setAttribute(this.#user, "title", `Signed in as ${user.userId}`);
    this.#links.outbox.hidden = !user.admin;
    setAttribute(this.#links.list, "aria-current", name === "list" ? "page" : name === "media" ? "true" : null);
    setAttribute(this.#links.outbox, "aria-current", name === "outbox" ? "page" : name === "history" ? "true" : null);
  }

  #count(active) {
    this.#busy.hidden = active === 0;
    setText(this.#busy, plural(active, "upload"));
  }
}
