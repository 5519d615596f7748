/**
 * A large file on its way up in parts, by tus 1.0.0: after a break, a reload or a pause it goes on behind the bytes that
 * the service has.
 */

import { Problem } from "./problem.js";
import { Pace, transfer, wellFormed } from "./transfer.js";
import { forget, placeOf, recall, remember } from "./unfinished.js";

const MIB = 2 ** 20;
const RESUMABLE_ABOVE = 8 * MIB;
const LARGEST_PART = 64 * MIB;
const TUS = { "Tus-Resumable": "1.0.0" };
const GONE = [404, 410];
/** Refusals that a person can mend, after which the same upload goes on. */
const LEAVES_UPLOAD = [401, 403, 507];
/** What stops an upload that HEAD asks for; a proxy's other refusals of HEAD do not matter. */
const BUSY = [0, 401, 423, 503];

/** Bytes of a part. `?partSize=` of the page's address, in MiB, makes it less, for proxies that refuse long bodies. */
function partBytes() {
  const asked = Math.floor(Number(new URLSearchParams(window.location.search).get("partSize")) * MIB);
  return asked >= 1 ? Math.min(asked, LARGEST_PART) : LARGEST_PART;
}

/** Whether a file is sent in parts. */
export function isLarge(file) {
  return file.size > Math.min(RESUMABLE_ABOVE, partBytes());
}

/**
 * One file. `reached` is how many bytes the service is known to have; `resumedAt` where it last went on, `null` where it
 * did not.
 */
export class ResumableFile {
  #api;
  #file;
  #place;
  #id = null;

  constructor(api, file) {
    this.#api = api;
    this.#file = file;
    this.#place = placeOf(api.userId, file);
    this.reached = 0;
    this.resumedAt = null;
  }

  /** One attempt to send what is missing. Resolves to `{media, duplicate}`; rejects as `transfer` does. */
  async send(options) {
    const attempt = (lock) => this.#attempt({ ...options, isShared: lock === null });
    try {
      // Another tab that sends the same file has an upload of its own: two senders of one would stop each other. Where
      // the page does not come by TLS there are no locks, and that is what happens until one of them is through.
      if (!navigator.locks) return await attempt();
      return await navigator.locks.request(this.#place, { ifAvailable: true }, attempt);
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      if (!error.passes && !LEAVES_UPLOAD.includes(error.status)) this.#forget();
      if (GONE.includes(error.status))
        throw new Problem({ status: 0, title: "The upload is gone", detail: "It begins anew." });
      throw error;
    }
  }

  /** Have the service forget what it has: its user does not want the upload any more. */
  async discard() {
    const id = this.#id;
    this.#forget();
    if (id === null) return;
    try {
      await this.#api.request(`/uploads/${id}`, { method: "DELETE", headers: TUS });
    } catch (error) {
      if (!(error instanceof Problem)) throw error; // what is left of it expires by itself
    }
  }

  async #attempt({ signal, onProgress, onResumed, isShared }) {
    const pace = new Pace(this.#file.size);
    const onSent = (sent) => onProgress(pace.at(sent));
    const resumed = (offset) => {
      this.reached = this.resumedAt = offset;
      onResumed(offset);
      onSent(offset);
    };
    let state = await this.#found(signal, isShared);
    if (state === null) state = await this.#created(signal, isShared);
    else resumed(state.offset);
    let { offset } = state;
    while (offset < this.#file.size) {
      try {
        offset = this.reached = await this.#append(offset, { signal, onSent });
      } catch (error) {
        if (!(error.uploadOffset > offset)) throw error;
        offset = error.uploadOffset;
        resumed(offset);
      }
    }
    if (state.state !== "complete") state = await this.#state(signal);
    if (state?.state !== "complete")
      throw new Problem({ status: 0, title: "The service has not said yet what became of the upload", detail: "" });
    this.#forget();
    return state;
  }

  /** How the upload of before stands, if the service still has it. */
  async #found(signal, isShared) {
    this.#id ??= isShared ? null : recall(this.#place);
    if (this.#id === null) return null;
    // This ends the request whose connection broke, where the service is still waiting for its bytes.
    await this.#api.request(`/uploads/${this.#id}`, { method: "HEAD", headers: TUS, signal }).catch((error) => {
      if (!(error instanceof Problem) || BUSY.includes(error.status)) throw error;
    });
    const state = await this.#state(signal);
    return state?.length === this.#file.size ? state : null;
  }

  async #created(signal, isShared) {
    this.reached = 0;
    this.resumedAt = null;
    const { name, size } = this.#file;
    const headers = { ...TUS, "Upload-Length": size, "Upload-Metadata": `filename ${base64(wellFormed(name))}` };
    const response = await this.#api.request("/uploads", { method: "POST", headers, signal });
    this.#id = response.headers.get("Location").split("/").at(-1);
    if (!isShared) remember(this.#place, this.#id);
    return { state: "receiving", offset: 0 };
  }

  /** What the service says of the upload; `null` where it is gone. Rejects with the Problem that it ended with. */
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

  /** Send the part that begins at `offset`; how many bytes the service has then. */
  async #append(offset, { signal, onSent }) {
    const answer = await transfer(this.#api, `/uploads/${this.#id}`, {
      method: "PATCH",
      headers: { ...TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": offset },
      body: this.#file.slice(offset, offset + partBytes()),
      signal,
      onSent: (sent) => onSent(offset + sent),
    });
    const reached = Number.parseInt(answer.header("Upload-Offset"), 10);
    if (!(reached > offset)) throw Problem.unreachable();
    return reached;
  }

  #forget() {
    if (recall(this.#place) === this.#id) forget(this.#place); // what another tab remembers is that one's
    this.#id = null;
  }
}

function base64(text) {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}
