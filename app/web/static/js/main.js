/** Connects the session, the API, the uploads, and the view of the current address. */

import { announce } from "./announce.js";
import { Api, isAbort } from "./api.js";
import { Bar } from "./bar.js";
import { forbiddenView } from "./forbidden_view.js";
import { historyView } from "./history_view.js";
import { listView } from "./list_view.js";
import { mediaView } from "./media_view.js";
import { outboxView } from "./outbox_view.js";
import { route } from "./router.js";
import { Session } from "./session.js";
import { signInView } from "./sign_in_view.js";
import { Uploads } from "./uploads.js";

const VIEWS = { list: listView, media: mediaView, outbox: outboxView, history: historyView };
const FOR_ADMINISTRATORS = new Set(["outbox", "history"]);

const main = document.getElementById("main");
const session = new Session(window.sessionStorage);
const api = new Api(session);
const uploads = new Uploads(api);
const bar = new Bar(document.getElementById("bar"), session, uploads);
let shown = null;

/** Show the view for the address and the session, and stop the previous one. */
function show({ moveFocus }) {
  shown?.abort();
  shown = new AbortController();
  const { name, id } = route(window.location.hash);
  const view = viewOf(name)({ api, session, uploads, id, signal: shown.signal });
  document.title = view.title ? `${view.title} · Detections` : "Detections";
  main.replaceChildren(view.node);
  bar.show(name);
  window.scrollTo(0, 0);
  if (!moveFocus) return;
  (main.querySelector("[autofocus]") ?? main.querySelector("h1") ?? main).focus({ preventScroll: true });
  announce(document.title);
}

function viewOf(name) {
  if (!session.user) return signInView;
  return FOR_ADMINISTRATORS.has(name) && !session.user.admin ? forbiddenView : VIEWS[name];
}

/** Resume with the tab's stored token if the service still accepts it. */
async function resume() {
  const { token } = session;
  if (token === null) return;
  try {
    await api.signIn(token);
  } catch (problem) {
    if (problem.passes)
      session.reason = problem.detail; // the token may be valid, so keep it for the next attempt
    else session.end(problem.detail || problem.title);
  }
}

document.querySelector(".skip-link").addEventListener("click", (event) => {
  event.preventDefault(); // its hash is not a view
  main.focus();
});
window.addEventListener("hashchange", () => show({ moveFocus: true }));
window.addEventListener(
  "beforeunload",
  (event) => uploads.active.some((one) => one.cancellable) && event.preventDefault(),
);
window.addEventListener("unhandledrejection", (event) => isAbort(event.reason) && event.preventDefault());

await resume();
show({ moveFocus: false });
session.addEventListener("change", () => {
  if (!session.user) uploads.drop();
  show({ moveFocus: true });
});
