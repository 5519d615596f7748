/** Where a player is to be sent so that it shows one certain frame. */

/**
 * How far into the frame. At its very first instant the rounding of times decides whether a browser shows it or the one
 * before; so early behind it no other has begun, at up to a thousand frames a second.
 */
const INTO_FRAME_SECONDS = 0.0005;
const MOST_TRIES = 12;

/**
 * Aims at the frame that begins at `time`. Chromium goes by how long a file says that its frames last, which at a
 * variable rate is true of few of them, and may stop at a frame before: then it is sent further, step by step.
 */
export class Aim {
  #time;
  #tries = 0;
  #early = -Infinity;
  #late = Infinity;
  #step = 0;
  /** Seconds at which the player is to look. */
  at;

  constructor(time) {
    this.#time = time;
    this.at = time + INTO_FRAME_SECONDS;
  }

  /** The aim after a frame that begins at `shown` has come up; `null` where that is the right one, or never will be. */
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
