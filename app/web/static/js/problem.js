/** Errors of the service and of the network, as RFC 9457 problems. */

/** Statuses after which the same request may succeed; 0 means that there was no response. */
const PASSING = new Set([0, 408, 423, 429, 502, 503, 504]);

/**
 * `status` is 0 without a response. `retryAfter` is in seconds, and `uploadOffset`, of a resumable upload, in bytes;
 * they are `null` if the response has none.
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

  /** No response, or a broken connection. */
  static unreachable() {
    return new Problem({
      status: 0,
      title: "The service cannot be reached",
      detail: "The connection failed. Check the network and try again.",
    });
  }

  /** Whether the same request may succeed later. */
  get passes() {
    return PASSING.has(this.status) || this.uploadOffset !== null;
  }
}

/**
 * Returns the problem in a response's text; `header(name)` returns its headers. Responses of a proxy in front of the
 * service have only a status.
 */
export function problemFrom(status, text, header) {
  const headers = { retryAfter: count(header("Retry-After")), uploadOffset: count(header("Upload-Offset")) };
  const document = parse(text);
  if (typeof document?.title === "string") return new Problem({ detail: "", ...document, status }, headers);
  return new Problem({ status, title: `The service responded with ${status}`, detail: text.slice(0, 300).trim() }, headers);
}

/** A header as a number, or `null`. */
function count(text) {
  const number = Number.parseInt(text ?? "", 10);
  return Number.isFinite(number) && number >= 0 ? number : null;
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null; // the caller reports the status
  }
}
