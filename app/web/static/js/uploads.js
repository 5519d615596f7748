/**
 * The uploads of the page, from the queue to the result. They outlive the views: an upload continues while the user
 * opens another one.
 */

import { isAbort } from "./api.js";
import { follow } from "./events.js";
import { Problem } from "./problem.js";
import { isLarge, ResumableFile } from "./resumable.js";
import { sleep, ConcurrencyLimiter } from "./time.js";
import { sendFile } from "./transfer.js";

/** Each upload and each event stream takes one of the service's slots and one of the browser's connections. */
const SENDING_AT_ONCE = 2;
const FOLLOWING_AT_ONCE = 2;
const MOST_TRIES = 30;
const LONGEST_WAIT = 30;

const PAUSED = new DOMException("The upload is paused", "AbortError");
const CANCELLED = new DOMException("The upload is cancelled", "AbortError");

/**
 * `queued → sending (⇄ held) → detecting → done`, or `failed`, or `cancelled`; a large file may be `paused` before it is
 * sent completely. `parts` sends a large file, and is `null` for others.
 */
export class Upload extends EventTarget {
  constructor(file, parts) {
    super();
    this.file = file;
    this.parts = parts;
    this.begin();
  }

  /** Reset the upload to its initial state. */
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

  /** Whether the upload can be cancelled; the service finishes what it has accepted. */
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

/** Dispatches `change` when an upload is added, is removed or changes its state. */
export class Uploads extends EventTarget {
  #api;
  #sending = new ConcurrencyLimiter(SENDING_AT_ONCE);
  #following = new ConcurrencyLimiter(FOLLOWING_AT_ONCE);

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
    const isPaused = upload.state === "paused"; // so that no task reacts to the signal
    if (isPaused) upload.controller = new AbortController();
    upload.controller.abort(CANCELLED);
    if (isPaused) this.#cancelled(upload);
  }

  /** Stop sending until `resume`; the service keeps what it has. */
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

  /** Remove ended uploads from the list. */
  clear() {
    this.all = this.all.filter((upload) => !upload.ended);
    this.#changed();
  }

  /** Stop and remove all uploads after sign-out. */
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
      const before = upload.parts?.acknowledged ?? 0;
      upload.change({ state: "sending", retryAt: null, problem: null });
      try {
        if (upload.parts) return await upload.parts.send({ signal, onProgress, onResumed });
        return await sendFile(this.#api, upload.file, { signal, onProgress });
      } catch (error) {
        if (upload.parts?.acknowledged > before) tries = 1;
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
  const title = "The file was stored, but detection failed";
  return { state: "failed", problem: new Problem({ status: 200, title, detail: record.run.error ?? "" }) };
}
