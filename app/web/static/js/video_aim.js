/** Computes the seek position at which a player shows a certain frame. */

/**
 * The offset into the frame. At its exact start, rounding decides whether the browser shows it or the previous one;
 * at this offset no other frame has begun, up to a thousand frames per second.
 */
const INTO_FRAME_SECONDS = 0.0005;
const MOST_TRIES = 12;

/**
 * Seeks to the frame that begins at `time`. Chromium uses the frame durations in the file, which are wrong for most
 * frames of a variable rate, and may stop at an earlier frame; then the position is advanced step by step.
 */
export class Aim {
  #time;
  #tries = 0;
  #early = -Infinity;
  #late = Infinity;
  #step = 0;
  /** The seek position in seconds. */
  at;

  constructor(time) {
    this.#time = time;
    this.at = time + INTO_FRAME_SECONDS;
  }

  /** The next aim after the frame at `shown` appeared; `null` if it is the right one or no aim can succeed. */
  next(shown) {
    this.#tries += 1;
    const off = this.#time - shown;
    if (Math.abs(off) < INTO_FRAME_SECONDS || this.#tries > MOST_TRIES) return null;
    if (off > 0) this.#early = this.at;
    else this.#late = this.at;
    this.#step = Math.max(2 * this.#step, Math.abs(off) / 2);
    if (this.#early === -Infinity) this.at -= this.#step;
    else if (this.#late === Infinity) this.at += this.#step;
    else this.at = (this.#early + this.#late) / 2;
    return this;
  }
}
