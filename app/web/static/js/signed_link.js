/** A short-lived signed address of a media item's content, for elements that cannot send a token. */

import { Problem, problemFrom } from "./problem.js";

export class SignedLink {
  #api;
  #mediaId;
  #signal;
  #link = null;

  constructor(api, mediaId, signal) {
    this.#api = api;
    this.#mediaId = mediaId;
    this.#signal = signal;
  }

  /**
   * Why the last one gave no bytes: elements do not say. `null` where it does give them, so that whoever could not
   * use them has no use for them at all.
   */
  async trouble() {
    try {
      const response = await fetch(this.#link.url, { headers: { Range: "bytes=0-0" }, signal: this.#signal });
      const text = await response.text();
      return response.ok ? null : problemFrom(response.status, text, (name) => response.headers.get(name));
    } catch (error) {
      this.#signal.throwIfAborted();
      if (error instanceof TypeError) return Problem.unreachable();
      throw error;
    }
  }

  /** Request a new link. */
  async renew() {
    this.#link = await this.#api.post(`/media/${this.#mediaId}/link`, undefined, { signal: this.#signal });
    return this.#link.url;
  }
}
