/** Confirmation dialogs. */

import { h } from "./dom.js";

/** Resolves to whether the user confirmed; to false when the signal is aborted because the view was left. */
export function confirm({ title, text, yes, signal, danger = false }) {
  return new Promise((resolve) => {
    const close = (answer) => () => dialog.close(answer);
    const dialog = h(
      "dialog",
      { class: "dialog", "aria-labelledby": "dialog-title" },
      h("h2", { id: "dialog-title" }, title),
      h("p", {}, text),
      h(
        "div",
        { class: "dialog-actions" },
        h("button", { class: "button", autofocus: true, on: { click: close("") } }, "Cancel"),
        h(
          "button",
          { class: danger ? "button button-danger" : "button button-primary", on: { click: close("yes") } },
          yes,
        ),
      ),
    );
    signal.addEventListener("abort", close(""));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}
