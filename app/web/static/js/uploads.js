/**
 * The files that somebody gave the page, each on its way from the queue to its result. It outlives every view: an
 * upload goes on while its user looks at something else.
 */

import { isAbort } from "./api.js";
import { follow } from "./events.js";
import { Problem } from "./problem.js";
import { sleep, Turns } from "./time.js";
import { sendFile } from "./transfer.js";

/** Each upload and each stream of events holds one of the service's slots and one of the browser's connections. */
const SENDING_AT_ONCE = 2;
const FOLLOWING_AT_ONCE = 2;
const MOST_TRIES = 30;
const LONGEST_WAIT = 30;

/** `queued → sending (⇄ held) → detecting → done`, or `failed`, or `cancelled`. */
export class Upload extends EventTarget {
  constructor(file) {
    super();
    this.file = file;
    this.begin();
  }

  /** As if it had just been given. */
  begin() {
    this.controller = new AbortController();
    this.state = "queued";
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
    return ["queued", "sending", "held"].includes(this.state);
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
      const upload = new Upload(file);
      upload.addEventListener("state", () => this.#changed());
      this.all.push(upload);
      this.#carry(upload);
    }
    this.#changed();
  }

  cancel(upload) {
    if (upload.cancellable) upload.controller.abort();
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
      if (signal.aborted || isAbort(error)) upload.change({ state: "cancelled", retryAt: null });
      else if (error instanceof Problem) upload.change({ state: "failed", problem: error, retryAt: null });
      else throw error;
    }
  }

  /** Send it, again after a while where the service is busy or away for now: the same bytes twice are no harm. */
  async #send(upload) {
    const { signal } = upload.controller;
    for (let tries = 1; ; tries += 1) {
      upload.change({ state: "sending", retryAt: null, problem: null });
      try {
        const onProgress = (progress) => upload.change({ progress });
        return await sendFile(this.#api, upload.file, { signal, onProgress });
      } catch (error) {
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
