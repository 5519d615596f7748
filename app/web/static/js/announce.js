/** Messages to the user: announced to screen readers, and shown as toasts. */

import { h, icon } from "./dom.js";
import { Problem } from "./problem.js";

const STAYS_SECONDS = 12;
const polite = document.getElementById("polite");
const toasts = document.getElementById("toasts");

/** Have screen readers announce the text after what they are reading. */
export function announce(text) {
  polite.textContent = "";
  requestAnimationFrame(() => {
    polite.textContent = text;
  });
}

/** Show and announce a success. */
export function showSuccess(text) {
  show(h("p", {}, text), "toast toast-good", "good");
}

/** Show and announce a problem's title and detail. */
export function showError(problem) {
  if (!(problem instanceof Problem)) console.error(problem); // a bug of the page
  const title = problem.title ?? "Something went wrong";
  const detail = problem.detail ?? problem.message;
  const id = problem.requestId ? h("small", {}, `Request ${problem.requestId}`) : null;
  show(h("div", {}, h("strong", {}, title), h("p", {}, detail), id), "toast toast-bad", "bad");
}

function show(content, className, iconName) {
  const same = [...toasts.children].find((one) => one.dataset.text === content.textContent);
  same?.remove(); // repeated errors replace each other
  const toast = h("div", { class: className, "data-text": content.textContent }, icon(iconName), content);
  const close = h("button", { class: "button-icon", "aria-label": "Dismiss", on: { click: () => toast.remove() } });
  close.append(icon("close"));
  toast.append(close);
  toasts.append(toast);
  while (toasts.children.length > 3) toasts.firstElementChild.remove();
  const leave = () => (toast.matches(":hover, :focus-within") ? setTimeout(leave, 2000) : toast.remove());
  setTimeout(leave, STAYS_SECONDS * 1000);
}
