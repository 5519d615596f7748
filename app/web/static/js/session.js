/** The session: a token that is stored for the life of the tab, and its user. */

const KEY = "detections.token";

/** Dispatches `change` when somebody signs in or out. */
export class Session extends EventTarget {
  #storage;
  #user = null;

  constructor(storage) {
    super();
    this.#storage = storage;
    this.reason = "";
  }

  /** The tab's token, verified or not, or `null`. */
  get token() {
    return this.#storage.getItem(KEY);
  }

  /** `{userId, admin}` after the service accepted the token, else `null`. */
  get user() {
    return this.#user;
  }

  begin(token, user) {
    this.#storage.setItem(KEY, token);
    this.#user = user;
    this.reason = "";
    this.dispatchEvent(new Event("change"));
  }

  /** Delete the token; `reason` is shown to the user. */
  end(reason = "") {
    if (this.token === null && this.#user === null) return;
    this.#storage.removeItem(KEY);
    this.#user = null;
    this.reason = reason;
    this.dispatchEvent(new Event("change"));
  }
}
