/** The service's HTTP API: one place that knows the token, JSON, and how refusals come. */

import { address } from "./address.js";
import { Problem, problemFrom } from "./problem.js";

/** Every method rejects with a Problem, or with the signal's reason when that was aborted. A 401 ends the session. */
export class Api {
  #session;

  constructor(session) {
    this.#session = session;
  }

  /** Ask who a token stands for, and begin the session with it. */
  async signIn(token) {
    const response = await send("/me", { headers: bearer(token) });
    if (!response.ok) throw await refusal(response);
    this.#session.begin(token, await response.json());
  }

  /** The answer of a request that was taken. `body` is sent as JSON. */
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
    const problem = await refusal(response);
    if (problem.status === 401) this.refused(token, problem);
    throw problem;
  }

  async get(path, options = {}) {
    return json(await this.request(path, options));
  }

  async post(path, body, options = {}) {
    return json(await this.request(path, { ...options, method: "POST", body }));
  }

  /** The headers that stand for this session's user, for what fetch cannot send. */
  get authorization() {
    return bearer(this.#session.token);
  }

  /** End the session for a 401; a late answer to a token that was given up before changes nothing. */
  refused(token, problem) {
    if (token === this.#session.token) this.#session.end(problem.detail || problem.title);
  }

  /** Who this session's user is, for what is kept for each of them. */
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

async function refusal(response) {
  return problemFrom(response.status, await response.text(), (name) => response.headers.get(name));
}

async function json(response) {
  try {
    return await response.json();
  } catch {
    throw Problem.unreachable(); // cut off on its way: every whole answer is JSON
  }
}

/** Whether an error is only that somebody aborted: the view was left, the upload cancelled. */
export function isAbort(error) {
  return error instanceof DOMException && error.name === "AbortError";
}
