/** What the service, or the way to it, refused: RFC 9457 problems as errors. */

/** `status` is 0 where no answer came; `retryAfter` is in seconds, `null` where the answer named none. */
export class Problem extends Error {
  constructor({ status, title, detail, requestId = null, mediaId = null }, retryAfter = null) {
    super(detail ? `${title}: ${detail}` : title);
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.requestId = requestId;
    this.mediaId = mediaId;
    this.retryAfter = retryAfter;
  }

  /** Nothing answered, or the connection broke on the way. */
  static unreachable() {
    return new Problem({
      status: 0,
      title: "The service cannot be reached",
      detail: "The connection was refused or broke. Check the network; then try again.",
    });
  }

  /** Whether the same request may well succeed later as it is. */
  get passes() {
    return this.status === 0 || this.status === 502 || this.status === 503 || this.status === 504;
  }
}

/** The problem in an answer's text. What stands before the service answers in other ways, a proxy say, has only a status. */
export function problemFrom(status, text, retryAfterHeader) {
  const seconds = Number.parseInt(retryAfterHeader ?? "", 10);
  const retryAfter = Number.isFinite(seconds) && seconds >= 0 ? seconds : null;
  const found = parsed(text);
  if (typeof found?.title === "string") return new Problem({ detail: "", ...found, status }, retryAfter);
  return new Problem(
    { status, title: `The service answered ${status}`, detail: text.slice(0, 300).trim() },
    retryAfter,
  );
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // said by the caller, who has the status
  }
}
