/** The address of a media's bytes for elements that cannot send a token: signed by the service, and short-lived. */

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

  /** Whether the last one given has run out, by this machine's clock. */
  get expired() {
    return this.#link !== null && Date.parse(this.#link.expiresAt) <= Date.now();
  }

  /** A fresh one. */
  async renew() {
    this.#link = await this.#api.post(`/media/${this.#mediaId}/link`, undefined, { signal: this.#signal });
    return this.#link.url;
  }
}
