/** The upload panel: a drop zone, and a row for each file. */

import { announce, showError } from "./announce.js";
import { h, icon, setAttribute, setText } from "./dom.js";
import { plural } from "./format.js";
import { Problem } from "./problem.js";
import { mediaPath } from "./router.js";
import { describeUpload } from "./upload_text.js";

const ACCEPT = [
  ".jpg,.jpeg,.jpe,.jfif,.png,.webp,.bmp,.tif,.tiff,.gif,.heic,.heif,.avif",
  ".mp4,.mov,.m4v,.mkv,.webm,.avi,.ts,.mts,.m2ts,.mpg,.mpeg,.wmv,.flv,.3gp,.insv,.lrf",
].join();

/** Return the panel, which shows `uploads` until the signal is aborted. */
export function uploadPanel(uploads, signal) {
  const rows = new Map();
  const list = h("ul", { class: "uploads", "aria-label": "Uploads" });
  const clear = h("button", { class: "button button-quiet", on: { click: () => uploads.clear() } }, "Clear finished");
  const heading = h("h2");
  const head = h("div", { class: "uploads-head", hidden: true }, heading, clear);
  const node = h(
    "section",
    { class: "card upload-card", "aria-label": "Upload" },
    dropZone(uploads, signal),
    head,
    list,
  );

  const refresh = () => {
    const known = new Set(uploads.all);
    for (const [upload, row] of rows) {
      if (!known.has(upload)) {
        row.remove();
        rows.delete(upload);
      }
    }
    for (const upload of uploads.all) {
      if (!rows.has(upload)) {
        rows.set(upload, uploadRow(uploads, upload, signal));
        list.append(rows.get(upload));
      }
    }
    const left = uploads.active.length;
    head.hidden = uploads.all.length === 0;
    clear.hidden = uploads.all.length === left;
    setText(heading, left ? `${plural(left, "upload")} under way` : "Uploads");
  };
  uploads.addEventListener("change", refresh, { signal });
  refresh();
  return node;
}

function dropZone(uploads, signal) {
  const input = h("input", { type: "file", multiple: true, accept: ACCEPT, class: "visually-hidden", tabindex: "-1" });
  input.setAttribute("aria-hidden", "true");
  const button = h("button", { class: "button button-primary", on: { click: () => input.click() } }, "Choose files");
  const text = h(
    "p",
    { class: "drop-text" },
    h("strong", {}, "Drop photos and videos here"),
    h("span", {}, " or "),
    button,
  );
  const zone = h("div", { class: "drop" }, icon("upload"), text, input);
  input.addEventListener("change", () => {
    uploads.add([...input.files]);
    input.value = "";
  });
  takeDrops(zone, (files) => uploads.add(files), signal);
  return zone;
}

/** Accept drops anywhere on the page; otherwise the browser would open the dropped file. */
function takeDrops(zone, take, signal) {
  let depth = 0;
  const mark = (change) => {
    depth = Math.max(0, depth + change);
    zone.classList.toggle("drop-over", depth > 0);
  };
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files");
  const on = (name, listener) =>
    window.addEventListener(name, (event) => holdsFiles(event) && listener(event), { signal });
  on("dragenter", () => mark(1));
  on("dragleave", () => mark(-1));
  on("dragover", (event) => {
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
  });
  on("drop", (event) => {
    event.preventDefault();
    depth = 0;
    mark(0);
    take(filesOf(event.dataTransfer));
  });
}

function filesOf(transfer) {
  const folders = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry?.isDirectory);
  if (folders.length) {
    const names = folders.map((entry) => entry.name);
    const detail = `${names.join(", ")}: open the folder, and drop or choose the files in it.`;
    showError(new Problem({ status: 0, title: "Folders cannot be uploaded", detail }));
  }
  const left = new Set(folders.map((entry) => entry.name));
  return [...transfer.files].filter((file) => !left.has(file.name));
}

function uploadRow(uploads, upload, signal) {
  const { name } = upload.file;
  const title = h("span", { class: "upload-name", title: name }, name);
  const bar = h("progress", { "aria-label": `Progress of ${name}` });
  const text = h("p", { class: "upload-text" });
  const detail = h("p", { class: "upload-detail", hidden: true });
  const link = h("a", { class: "button button-small", hidden: true }, "Open");
  const retry = h(
    "button",
    { class: "button button-small", hidden: true, on: { click: () => uploads.retry(upload) } },
    "Retry",
  );
  // One button for both actions, so that it keeps the focus.
  const pause = h("button", {
    class: "button button-small",
    on: { click: () => (upload.state === "paused" ? uploads.resume(upload) : uploads.pause(upload)) },
  });
  const cancel = h("button", {
    class: "button-icon",
    "aria-label": `Cancel ${name}`,
    on: { click: () => uploads.cancel(upload) },
  });
  cancel.append(icon("close"));
  const row = h(
    "li",
    { class: "upload" },
    title,
    h("div", { class: "upload-actions" }, link, retry, pause, cancel),
    bar,
    text,
    detail,
  );

  const show = () => {
    const [line, more] = describeUpload(upload);
    setAttribute(row, "data-state", upload.state);
    setText(text, line);
    setText(detail, more);
    detail.hidden = !more;
    showBar(bar, upload);
    link.hidden = upload.media === null && !upload.problem?.mediaId;
    const id = upload.media?.id ?? upload.problem?.mediaId;
    if (id) setAttribute(link, "href", mediaPath(id));
    setAttribute(link, "aria-label", `Open ${name}`);
    retry.hidden = !["failed", "cancelled"].includes(upload.state) || upload.media !== null;
    const verb = upload.state === "paused" ? "Resume" : "Pause";
    setText(pause, verb);
    setAttribute(pause, "aria-label", `${verb} ${name}`);
    pause.hidden = !upload.pausable && upload.state !== "paused";
    cancel.hidden = !upload.cancellable;
  };
  const speak = () => {
    const lines = upload.state === "sending" ? ["sending"] : describeUpload(upload);
    announce([name, ...lines].filter(Boolean).join(": "));
  };
  const ticking = setInterval(() => upload.state === "held" && show(), 500);
  signal.addEventListener("abort", () => clearInterval(ticking));
  upload.addEventListener("change", show, { signal });
  upload.addEventListener("state", speak, { signal });
  show();
  return row;
}

function showBar(bar, upload) {
  bar.hidden = upload.ended;
  const { run, state, progress } = upload;
  const counted = state === "detecting" && run?.framesTotal ? [run.framesDone, run.framesTotal] : null;
  const [value, max] = state === "detecting" ? (counted ?? [null, 1]) : [progress.sent, progress.total];
  setAttribute(bar, "max", Math.max(1, max));
  setAttribute(bar, "value", value === null ? null : Math.min(value, Math.max(1, max)));
}
