/** A body on its way up. XMLHttpRequest, because fetch tells nobody how much of a body has gone. */

import { address } from "./address.js";
import { Problem, problemFrom } from "./problem.js";

const WINDOW_SECONDS = 5;

/**
 * Sends a request with a body, of which `onSent(bytes)` is told as it goes. Resolves to `{header(name), text}` of the
 * answer; rejects with a Problem, or with the signal's reason.
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
 * Sends a file to be detected in one request, without waiting for the run. `onProgress` is told what `Pace` gives.
 * Resolves to the answer's JSON; rejects as `transfer` does.
 */
export async function sendFile(api, file, { signal, onProgress }) {
  const pace = new Pace(file.size);
  const onSent = (sent) => onProgress(pace.at(sent));
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
  // RFC 8187 has a few characters escaped that encodeURIComponent leaves alone.
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

/** A name that can be written as UTF-8; in browsers of before 2023 as it is. */
export function wellFormed(name) {
  return name.toWellFormed?.() ?? name;
}

/** How fast bytes go: the mean over the last seconds, steady enough to read, quick enough to be true. */
export class Pace {
  #marks = [];
  #total;

  constructor(total) {
    this.#total = total;
  }

  /** `{sent, total, speed, secondsLeft}` now; speed is in bytes a second, `null` at first. */
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
