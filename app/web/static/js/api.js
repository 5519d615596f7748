/** The service's HTTP API: adds the token, encodes JSON, and turns error responses into Problems. */

import { address } from "./address.js";
import { Problem, problemFrom } from "./problem.js";

/** Every method rejects with a Problem, or with the signal's reason when that was aborted. A 401 ends the session. */
export class Api {
  #session;

  constructor(session) {
    this.#session = session;
  }

  /** Fetch the user of a token, and begin the session with it. */
  async signIn(token) {
    const response = await send("/me", { headers: bearer(token) });
    if (!response.ok) throw await problemOf(response);
    this.#session.begin(token, await response.json());
  }

  /** Send a request and return the successful response. `body` is sent as JSON. */
  async request(path, { method = "GET", body, headers = {}, signal } = {}) {
    const token = this.#session.token;
    const content = body === undefined ? {} : { "Content-Type": "application/json" };
    const response = await send(path, {
      method,
      signal,
      headers: { ...bearer(token), ...content, ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (response.ok) return response;
    const problem = await problemOf(response);
    if (problem.status === 401) this.refused(token, problem);
    throw problem;
  }

  async get(path, options = {}) {
    return json(await this.request(path, options));
  }

  async post(path, body, options = {}) {
    return json(await this.request(path, { ...options, method: "POST", body }));
  }

  /** The session's authorization headers, for XMLHttpRequest. */
  get authorization() {
    return bearer(this.#session.token);
  }

  /** End the session after a 401, unless the response belongs to an earlier token. */
  refused(token, problem) {
    if (token === this.#session.token) this.#session.end(problem.detail || problem.title);
  }

  /** The session's user, for data stored per user. */
  get userId() {
    return this.#session.user?.userId ?? null;
  }

  get token() {
    return this.#session.token;
  }
}

function bearer(token) {
  return token === null ? {} : { Authorization: `Bearer ${token}` };
}

async function send(path, options) {
  try {
    return await fetch(address(path), { ...options, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (options.signal?.aborted) throw options.signal.reason;
    if (error instanceof TypeError) throw Problem.unreachable();
    throw error;
  }
}

async function problemOf(response) {
  return problemFrom(response.status, await response.text(), (name) => response.headers.get(name));
}

async function json(response) {
  try {
    return await response.json();
  } catch {
    throw Problem.unreachable(); // a truncated response; complete ones are JSON
  }
}

/** Whether an error only means that something was aborted: a view was left or an upload cancelled. */
export function isAbort(error) {
  return error instanceof DOMException && error.name === "AbortError";
}
