/** One file on its way up. XMLHttpRequest, because fetch tells nobody how much of a body has gone. */

import { address } from "./address.js";
import { Problem, problemFrom } from "./problem.js";

const WINDOW_SECONDS = 5;

/**
 * Sends a file to be detected, without waiting for the run. `onProgress({sent, total, speed, secondsLeft})` is told
 * as it goes; speed is in bytes a second over the last seconds, `null` at first. Resolves to the answer's JSON.
 * Rejects with a Problem, or with the signal's reason.
 */
export function sendFile(api, file, { signal, onProgress }) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const request = new XMLHttpRequest();
    const token = api.token;
    const speed = new Speed();
    const settle = (finish, value) => {
      signal.removeEventListener("abort", stop);
      finish(value);
    };
    const stop = () => {
      request.abort();
      settle(reject, signal.reason);
    };
    request.upload.addEventListener("progress", ({ loaded }) => onProgress(progress(loaded, file.size, speed)));
    request.upload.addEventListener("load", () => onProgress(progress(file.size, file.size, speed)));
    request.addEventListener("error", () => settle(reject, Problem.unreachable()));
    request.addEventListener("load", () => {
      if (request.status >= 200 && request.status < 300) {
        settle(resolve, JSON.parse(request.responseText));
        return;
      }
      const problem = problemFrom(request.status, request.responseText, request.getResponseHeader("Retry-After"));
      if (problem.status === 401) api.refused(token, problem);
      settle(reject, problem);
    });
    signal.addEventListener("abort", stop, { once: true });
    request.open("POST", address("/detect"));
    for (const [name, value] of Object.entries(headers(api, file))) request.setRequestHeader(name, value);
    request.send(file);
  });
}

function headers(api, file) {
  // RFC 8187 has a few characters escaped that encodeURIComponent leaves alone.
  const name = encodeURIComponent(file.name.toWellFormed?.() ?? file.name).replace(
    /['()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return {
    ...api.authorization,
    "Content-Type": "application/octet-stream",
    "Content-Disposition": `attachment; filename*=UTF-8''${name}`,
    Prefer: "respond-async",
  };
}

function progress(sent, total, speed) {
  const pace = speed.after(sent);
  return { sent, total, speed: pace, secondsLeft: pace ? (total - sent) / pace : null };
}

/** The mean over the last seconds: steady enough to read, quick enough to be true. */
class Speed {
  #marks = [];

  after(sent) {
    const now = performance.now() / 1000;
    this.#marks.push([now, sent]);
    while (this.#marks.length > 2 && now - this.#marks[1][0] > WINDOW_SECONDS) this.#marks.shift();
    const [began, before] = this.#marks[0];
    return now - began < 0.3 ? null : (sent - before) / (now - began);
  }
}
