/**
 * The files that somebody gave the page, each on its way from the queue to its result. It outlives every view: an
 * upload goes on while its user looks at something else.
 */

import { isAbort } from "./api.js";
import { follow } from "./events.js";
import { Problem } from "./problem.js";
import { isLarge, ResumableFile } from "./resumable.js";
import { sleep, Turns } from "./time.js";
import { sendFile } from "./transfer.js";

/** Each upload and each stream of events holds one of the service's slots and one of the browser's connections. */
const SENDING_AT_ONCE = 2;
const FOLLOWING_AT_ONCE = 2;
const MOST_TRIES = 30;
const LONGEST_WAIT = 30;

const PAUSED = new DOMException("The upload is paused", "AbortError");
const CANCELLED = new DOMException("The upload is cancelled", "AbortError");

/**
 * `queued → sending (⇄ held) → detecting → done`, or `failed`, or `cancelled`; a large file may be `paused` before it is
 * sent whole. `parts` is how a large file is sent, `null` for others.
 */
export class Upload extends EventTarget {
  constructor(file, parts) {
    super();
    this.file = file;
    this.parts = parts;
    this.begin();
  }

  /** As if it had just been given. */
  begin() {
    this.controller = new AbortController();
    this.state = "queued";
    this.resumedAt = null;
    this.progress = { sent: 0, total: this.file.size, speed: null, secondsLeft: null };
    this.retryAt = null;
    this.problem = null;
    this.media = null;
    this.run = null;
    this.duplicate = false;
  }

  get ended() {
    return ["done", "failed", "cancelled"].includes(this.state);
  }

  /** Whether cancelling still changes anything: what the service has accepted it finishes. */
  get cancellable() {
    return ["queued", "sending", "held", "paused"].includes(this.state);
  }

  get pausable() {
    return this.parts !== null && this.cancellable && this.state !== "paused";
  }

  change(fields) {
    const moved = fields.state !== undefined && fields.state !== this.state;
    Object.assign(this, fields);
    this.dispatchEvent(new Event("change"));
    if (moved) this.dispatchEvent(new Event("state"));
  }
}

/** Says `change` when an upload came, went, or got into another state. */
export class Uploads extends EventTarget {
  #api;
  #sending = new Turns(SENDING_AT_ONCE);
  #following = new Turns(FOLLOWING_AT_ONCE);

  constructor(api) {
    super();
    this.#api = api;
    this.all = [];
  }

  get active() {
    return this.all.filter((upload) => !upload.ended);
  }

  add(files) {
    for (const file of files) {
      const upload = new Upload(file, isLarge(file) ? new ResumableFile(this.#api, file) : null);
      upload.addEventListener("state", () => this.#changed());
      this.all.push(upload);
      this.#carry(upload);
    }
    this.#changed();
  }

  cancel(upload) {
    if (!upload.cancellable) return;
    const isPaused = upload.state === "paused"; // and nothing of it under way that would heed the signal
    if (isPaused) upload.controller = new AbortController();
    upload.controller.abort(CANCELLED);
    if (isPaused) this.#cancelled(upload);
  }

  /** Stop sending until `resume`; what the service has stays there. */
  pause(upload) {
    if (upload.pausable) upload.controller.abort(PAUSED);
  }

  resume(upload) {
    if (upload.state !== "paused") return;
    upload.controller = new AbortController();
    upload.change({ state: "queued" });
    this.#carry(upload);
  }

  retry(upload) {
    upload.begin();
    upload.change({});
    this.#carry(upload);
    this.#changed();
  }

  /** Take those that have ended off the list. */
  clear() {
    this.all = this.all.filter((upload) => !upload.ended);
    this.#changed();
  }

  /** Stop and forget everything: somebody signed out. */
  drop() {
    for (const upload of this.all) upload.controller.abort();
    this.all = [];
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  async #carry(upload) {
    const { signal } = upload.controller;
    try {
      const { media, duplicate } = await this.#sending.take(() => this.#send(upload), signal);
      upload.change({ state: "detecting", media, duplicate, run: media.run });
      const record = ended(media.run) ? media : await this.#following.take(() => this.#follow(upload), signal);
      upload.change({ state: "done", media: record, run: record.run, ...failure(record) });
    } catch (error) {
      if (signal.reason === PAUSED) upload.change({ state: "paused", retryAt: null });
      else if (signal.aborted || isAbort(error)) this.#cancelled(upload);
      else if (error instanceof Problem) upload.change({ state: "failed", problem: error, retryAt: null });
      else throw error;
    }
  }

  #cancelled(upload) {
    upload.change({ state: "cancelled", retryAt: null });
    if (upload.controller.signal.reason === CANCELLED) upload.parts?.discard();
  }

  /**
   * Send it, again after a while where the service is busy or away for now: the same bytes twice are no harm. Tries are
   * counted from the last one that brought the service bytes, so that a link may break as often as it likes.
   */
  async #send(upload) {
    const { signal } = upload.controller;
    const onProgress = (progress) => upload.change({ progress });
    const onResumed = (resumedAt) => upload.change({ resumedAt });
    for (let tries = 1; ; tries += 1) {
      const before = upload.parts?.reached ?? 0;
      upload.change({ state: "sending", retryAt: null, problem: null });
      try {
        if (upload.parts) return await upload.parts.send({ signal, onProgress, onResumed });
        return await sendFile(this.#api, upload.file, { signal, onProgress });
      } catch (error) {
        if (upload.parts?.reached > before) tries = 1;
        if (!(error instanceof Problem && error.passes) || tries === MOST_TRIES) throw error;
        const seconds = Math.max(error.retryAfter ?? 0, Math.min(LONGEST_WAIT, 2 ** (tries - 1)));
        upload.change({ state: "held", problem: error, retryAt: Date.now() + seconds * 1000 });
        await sleep(seconds, signal);
      }
    }
  }

  #follow(upload) {
    const on = (name, data) => name === "progress" && upload.change({ run: data });
    return follow(this.#api, upload.media.id, { signal: upload.controller.signal, on });
  }
}

function ended(run) {
  return run?.state === "done" || run?.state === "failed";
}

function failure(record) {
  if (record.run?.state !== "failed") return {};
  const title = "It was stored, but the detection failed";
  return { state: "failed", problem: new Problem({ status: 200, title, detail: record.run.error ?? "" }) };
}
