/**
 * Uploads a large file in parts by tus 1.0.0. After an interruption, a reload or a pause it continues after the bytes
 * that the service has.
 */

import { Problem } from "./problem.js";
import { ProgressMeter, transfer, wellFormed } from "./transfer.js";
import { deleteSaved, storageKey, loadSaved, save } from "./unfinished.js";

const MIB = 2 ** 20;
const RESUMABLE_ABOVE = 8 * MIB;
const LARGEST_PART = 64 * MIB;
const TUS = { "Tus-Resumable": "1.0.0" };
const GONE = [404, 410];
/** Errors that a person can fix, after which the same upload continues. */
const FIXABLE_STATUSES = [401, 403, 507];
/** Errors of HEAD that stop an upload; a proxy may refuse HEAD with others. */
const BUSY = [0, 401, 423, 503];

/** Bytes per part. `?partSize=` in the page's address, in MiB, reduces it for proxies that limit bodies. */
function partBytes() {
  const asked = Math.floor(Number(new URLSearchParams(window.location.search).get("partSize")) * MIB);
  return asked >= 1 ? Math.min(asked, LARGEST_PART) : LARGEST_PART;
}

/** Whether a file is sent in parts. */
export function isLarge(file) {
  return file.size > Math.min(RESUMABLE_ABOVE, partBytes());
}

/**
 * One file. `acknowledged` is the number of bytes that the service is known to have. `resumedAt` is where the upload
 * last continued, or `null`.
 */
export class ResumableFile {
  #api;
  #file;
  #place;
  #id = null;

  constructor(api, file) {
    this.#api = api;
    this.#file = file;
    this.#place = storageKey(api.userId, file);
    this.acknowledged = 0;
    this.resumedAt = null;
  }

  /** Make one attempt to send the missing bytes. Resolves to `{media, duplicate}`; rejects as `transfer` does. */
  async send(options) {
    const attempt = (lock) => this.#attempt({ ...options, isShared: lock === null });
    try {
      // Another tab that sends the same file gets an upload of its own, because two senders of one would stop each
      // other. Without TLS there are no locks, and they do stop each other until one has finished.
      if (!navigator.locks) return await attempt();
      return await navigator.locks.request(this.#place, { ifAvailable: true }, attempt);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (!error.passes && !FIXABLE_STATUSES.includes(error.status)) this.#deleteSaved();
      if (GONE.includes(error.status))
        throw new Problem({ status: 0, title: "The upload no longer exists", detail: "It starts again." });
      throw error;
    }
  }

  /** Delete the cancelled upload from the service. */
  async discard() {
    const id = this.#id;
    this.#deleteSaved();
    if (id === null) return;
    try {
      await this.#api.request(`/uploads/${id}`, { method: "DELETE", headers: TUS });
    } catch (error) {
      if (!(error instanceof Problem)) throw error; // the upload expires by itself
    }
  }

  async #attempt({ signal, onProgress, onResumed, isShared }) {
    const meter = new ProgressMeter(this.#file.size);
    const onSent = (sent) => onProgress(meter.at(sent));
    const resumed = (offset) => {
      this.acknowledged = this.resumedAt = offset;
      onResumed(offset);
      onSent(offset);
    };
    let state = await this.#findState(signal, isShared);
    if (state === null) state = await this.#created(signal, isShared);
    else resumed(state.offset);
    let { offset } = state;
    while (offset < this.#file.size) {
      try {
        offset = this.acknowledged = await this.#append(offset, { signal, onSent });
      } catch (error) {
        if (!(error.uploadOffset > offset)) throw error;
        offset = error.uploadOffset;
        resumed(offset);
      }
    }
    if (state.state !== "complete") state = await this.#state(signal);
    if (state?.state !== "complete")
      throw new Problem({ status: 0, title: "The service has not reported the upload's result yet", detail: "" });
    this.#deleteSaved();
    return state;
  }

  /** Return the state of the earlier upload, if the service still has it. */
  async #findState(signal, isShared) {
    this.#id ??= isShared ? null : loadSaved(this.#place);
    if (this.#id === null) return null;
    // HEAD ends an earlier request whose connection broke and which the service still waits for.
    await this.#api.request(`/uploads/${this.#id}`, { method: "HEAD", headers: TUS, signal }).catch((error) => {
      if (!(error instanceof Problem) || BUSY.includes(error.status)) throw error;
    });
    const state = await this.#state(signal);
    return state?.length === this.#file.size ? state : null;
  }

  async #created(signal, isShared) {
    this.acknowledged = 0;
    this.resumedAt = null;
    const { name, size } = this.#file;
    const headers = { ...TUS, "Upload-Length": size, "Upload-Metadata": `filename ${base64(wellFormed(name))}` };
    const response = await this.#api.request("/uploads", { method: "POST", headers, signal });
    this.#id = response.headers.get("Location").split("/").at(-1);
    if (!isShared) save(this.#place, this.#id);
    return { state: "receiving", offset: 0 };
  }

  /** Return the upload's state, or `null` if it is gone. Rejects with the Problem that it ended with. */
  async #state(signal) {
    try {
      const state = await this.#api.get(`/uploads/${this.#id}`, { signal });
      if (state.state === "failed") throw new Problem({ detail: "", ...state.problem });
      return state;
    } catch (error) {
      if (error instanceof Problem && GONE.includes(error.status)) return null;
      throw error;
    }
  }

  /** Send the part at `offset`; resolves to how many bytes the service has. */
  async #append(offset, { signal, onSent }) {
    const answer = await transfer(this.#api, `/uploads/${this.#id}`, {
      method: "PATCH",
      headers: { ...TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": offset },
      body: this.#file.slice(offset, offset + partBytes()),
      signal,
      onSent: (sent) => onSent(offset + sent),
    });
    const acknowledged = Number.parseInt(answer.header("Upload-Offset"), 10);
    if (!(acknowledged > offset)) throw Problem.unreachable();
    return acknowledged;
  }

  #deleteSaved() {
    if (loadSaved(this.#place) === this.#id) deleteSaved(this.#place); // another tab may have saved another upload
    this.#id = null;
  }
}

function base64(text) {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}
