/** Uploads with progress, by XMLHttpRequest, because fetch does not report it. */

import { address } from "./address.js";
import { Problem, problemFrom } from "./problem.js";

const WINDOW_SECONDS = 5;

/**
 * Sends a request with a body and calls `onSent(bytes)` meanwhile. Resolves to `{header(name), text}` of the
 * response; rejects with a Problem, or with the signal's reason.
 */
export function transfer(api, path, { method, headers, body, signal, onSent }) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const request = new XMLHttpRequest();
    const token = api.token;
    const settle = (finish, value) => {
      signal.removeEventListener("abort", stop);
      finish(value);
    };
    const stop = () => {
      request.abort();
      settle(reject, signal.reason);
    };
    const header = (name) => request.getResponseHeader(name);
    request.upload.addEventListener("progress", ({ loaded }) => onSent(loaded));
    request.upload.addEventListener("load", () => onSent(body.size));
    request.addEventListener("error", () => settle(reject, Problem.unreachable()));
    request.addEventListener("load", () => {
      if (request.status >= 200 && request.status < 300) {
        settle(resolve, { header, text: request.responseText });
        return;
      }
      const problem = problemFrom(request.status, request.responseText, header);
      if (problem.status === 401) api.refused(token, problem);
      settle(reject, problem);
    });
    signal.addEventListener("abort", stop, { once: true });
    request.open(method, address(path));
    for (const [name, value] of Object.entries({ ...api.authorization, ...headers }))
      request.setRequestHeader(name, value);
    request.send(body);
  });
}

/**
 * Uploads a file for detection in one request, without waiting for the run. `onProgress` gets `ProgressMeter`'s values.
 * Resolves to the response's JSON; rejects as `transfer` does.
 */
export async function sendFile(api, file, { signal, onProgress }) {
  const meter = new ProgressMeter(file.size);
  const onSent = (sent) => onProgress(meter.at(sent));
  const { text } = await transfer(api, "/detect", {
    method: "POST",
    headers: headers(file),
    body: file,
    signal,
    onSent,
  });
  return JSON.parse(text);
}

function headers(file) {
  // RFC 8187 requires a few characters escaped that encodeURIComponent leaves.
  const name = encodeURIComponent(wellFormed(file.name)).replace(
    /['()*]/g,
    (character) => `%${character.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return {
    "Content-Type": "application/octet-stream",
    "Content-Disposition": `attachment; filename*=UTF-8''${name}`,
    Prefer: "respond-async",
  };
}

/** Return a name that is valid UTF-16; unchanged in browsers from before 2023. */
export function wellFormed(name) {
  return name.toWellFormed?.() ?? name;
}

/** Measures an upload's speed as the mean of the last seconds. */
export class ProgressMeter {
  #marks = [];
  #total;

  constructor(total) {
    this.#total = total;
  }

  /** Return `{sent, total, speed, secondsLeft}`; speed is in bytes per second, `null` at first. */
  at(sent) {
    const speed = this.#speed(sent);
    return { sent, total: this.#total, speed, secondsLeft: speed ? (this.#total - sent) / speed : null };
  }

  #speed(sent) {
    const now = performance.now() / 1000;
    this.#marks.push([now, sent]);
    while (this.#marks.length > 2 && now - this.#marks[1][0] > WINDOW_SECONDS) this.#marks.shift();
    const [began, before] = this.#marks[0];
    return now - began < 0.3 ? null : (sent - before) / (now - began);
  }
}
