/** Who is signed in: a token that lives as long as the browser's tab, and what the service said it stands for. */

const KEY = "detections.token";

/** Says `change` whenever somebody came or went. */
export class Session extends EventTarget {
  #storage;
  #user = null;

  constructor(storage) {
    super();
    this.#storage = storage;
    this.reason = "";
  }

  /** The token of this tab, checked or not; `null` for none. */
  get token() {
    return this.#storage.getItem(KEY);
  }

  /** `{userId, admin}` once the service has taken the token, else `null`. */
  get user() {
    return this.#user;
  }

  begin(token, user) {
    this.#storage.setItem(KEY, token);
    this.#user = user;
    this.reason = "";
    this.dispatchEvent(new Event("change"));
  }

  /** Forget the token; `reason` is what its user is told. */
  end(reason = "") {
    if (this.token === null && this.#user === null) return;
    this.#storage.removeItem(KEY);
    this.#user = null;
    this.reason = reason;
    this.dispatchEvent(new Event("change"));
  }
}
