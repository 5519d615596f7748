/** What the service, or the way to it, refused: RFC 9457 problems as errors. */

/** Refusals after which the same request may well succeed; 0 stands for no answer at all. */
const PASSING = new Set([0, 408, 423, 429, 502, 503, 504]);

/**
 * `status` is 0 where no answer came; `retryAfter` is in seconds, and `uploadOffset`, which a resumable upload has, in
 * bytes: `null` where the answer named none.
 */
export class Problem extends Error {
  constructor(
    { status, title, detail, requestId = null, mediaId = null },
    { retryAfter = null, uploadOffset = null } = {},
  ) {
    super(detail ? `${title}: ${detail}` : title);
    this.status = status;
    this.title = title;
    this.detail = detail;
    this.requestId = requestId;
    this.mediaId = mediaId;
    this.retryAfter = retryAfter;
    this.uploadOffset = uploadOffset;
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
    return PASSING.has(this.status) || this.uploadOffset !== null;
  }
}

/**
 * The problem in an answer's text; `header(name)` gives its header fields. What stands before the service answers in other ways, a proxy
 * say, has only a status.
 */
export function problemFrom(status, text, header) {
  const told = { retryAfter: count(header("Retry-After")), uploadOffset: count(header("Upload-Offset")) };
  const found = parsed(text);
  if (typeof found?.title === "string") return new Problem({ detail: "", ...found, status }, told);
  return new Problem({ status, title: `The service answered ${status}`, detail: text.slice(0, 300).trim() }, told);
}

/** A header field that counts something, `null` where it does not. */
function count(text) {
  const number = Number.parseInt(text ?? "", 10);
  return Number.isFinite(number) && number >= 0 ? number : null;
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // said by the caller, who has the status
  }
}
