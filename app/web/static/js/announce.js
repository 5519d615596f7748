/** What is said to everybody: aloud to screen readers, and errors visibly too. */

import { h, icon } from "./dom.js";
import { Problem } from "./problem.js";

const STAYS_SECONDS = 12;
const polite = document.getElementById("polite");
const toasts = document.getElementById("toasts");

/** Have screen readers say it once they are done with what they say. */
export function announce(text) {
  polite.textContent = "";
  requestAnimationFrame(() => {
    polite.textContent = text;
  });
}

/** Say what went well, visibly and aloud. */
export function tell(text) {
  show(h("p", {}, text), "toast toast-good", "good");
}

/** Say what went wrong: a problem's title and detail. */
export function complain(problem) {
  if (!(problem instanceof Problem)) console.error(problem); // ours, not the service's
  const title = problem.title ?? "Something went wrong";
  const detail = problem.detail ?? problem.message;
  const id = problem.requestId ? h("small", {}, `Request ${problem.requestId}`) : null;
  show(h("div", {}, h("strong", {}, title), h("p", {}, detail), id), "toast toast-bad", "bad");
}

function show(content, className, iconName) {
  const same = [...toasts.children].find((one) => one.dataset.text === content.textContent);
  same?.remove(); // said again and again while the trouble lasts: one of it is enough
  const toast = h("div", { class: className, "data-text": content.textContent }, icon(iconName), content);
  const close = h("button", { class: "button-icon", "aria-label": "Dismiss", on: { click: () => toast.remove() } });
  close.append(icon("close"));
  toast.append(close);
  toasts.append(toast);
  while (toasts.children.length > 3) toasts.firstElementChild.remove();
  const leave = () => (toast.matches(":hover, :focus-within") ? setTimeout(leave, 2000) : toast.remove());
  setTimeout(leave, STAYS_SECONDS * 1000);
}
