/** Texts for an upload's state. */

import { bytes, duration, grouped, plural } from "./format.js";

/** Return a line of text, and a detail if there is one. */
export function describeUpload(upload) {
  const { state, media, problem } = upload;
  switch (state) {
    case "queued":
      return [`${bytes(upload.file.size)} · waiting for its turn`, ""];
    case "sending":
      return [sendingWords(upload), ""];
    case "paused":
      return [`Paused · ${partWords(upload.progress)}${resumedWords(upload)}`, ""];
    case "held":
      return [`${problem.title} · trying again in ${duration((upload.retryAt - Date.now()) / 1000)}`, problem.detail];
    case "detecting":
      return [`${knownWords(upload)}${runWords(upload.run)}`, ""];
    case "done":
      return [`${knownWords(upload)}${doneWords(media)}`, ""];
    case "failed":
      return [problem.title, problem.detail];
    default:
      return ["Cancelled", ""];
  }
}

function sendingWords(upload) {
  const { sent, total, speed, secondsLeft } = upload.progress;
  if (sent >= total) return `${bytes(total)} sent · waiting for the response`;
  const rate = speed === null ? "" : ` · ${bytes(speed)}/s`;
  const left =
    secondsLeft === null || !Number.isFinite(secondsLeft) ? "" : ` · ${duration(Math.ceil(secondsLeft))} left`;
  return `${partWords(upload.progress)}${resumedWords(upload)}${rate}${left}`;
}

function partWords({ sent, total }) {
  return `${bytes(sent)} of ${bytes(total)}`;
}

function resumedWords({ resumedAt }) {
  return resumedAt === null ? "" : ` · resumed at ${bytes(resumedAt)}`;
}

function knownWords({ duplicate, media, file }) {
  if (!duplicate) return "";
  const as = media.name === file.name ? "" : ` as ${media.name}`;
  return `Already known${as} · `;
}

function runWords(run) {
  if (run?.state !== "running") return "waiting for the detector";
  if (!run.framesTotal) return "detecting";
  return `detecting · ${grouped(run.framesDone)} of ${plural(run.framesTotal, "frame")}`;
}

function doneWords({ run, mediaType }) {
  if (!run) return "stored";
  return mediaType === "Video" ? `processed · ${plural(run.framesDone, "frame")}` : "processed";
}
