/** Looking again and again, but only while somebody can see it. */

import { isAbort } from "./api.js";
import { sleep } from "./time.js";

const LEAST_WAIT = 0.3;
const LONGEST_WAIT = 30;

/**
 * Calls `look` now and then every so many seconds until the signal is aborted; not while the tab is hidden, and at
 * once when it is shown again. `look` returns the seconds to its next call. After an error `failed` is told, and the
 * waits grow. Returns a function that has it look again at once.
 */
export function poll(look, { signal, failed }) {
  let wake = () => {};
  let pause = 2;
  let asked = false;
  const nudge = () => {
    asked = true;
    wake();
  };
  const onVisible = () => document.hidden || nudge();
  document.addEventListener("visibilitychange", onVisible, { signal });

  const rest = async (seconds) => {
    if (asked) {
      await sleep(LEAST_WAIT, signal);
      return;
    }
    const woken = new AbortController();
    wake = () => woken.abort();
    const either = AbortSignal.any([signal, woken.signal]);
    try {
      await sleep(document.hidden ? 1e6 : seconds, either);
    } catch {
      signal.throwIfAborted(); // woken: on with it
    }
  };

  const run = async () => {
    while (!signal.aborted) {
      asked = false;
      let next;
      try {
        next = await look();
        pause = 2;
      } catch (error) {
        signal.throwIfAborted();
        failed(error);
        next = pause;
        pause = Math.min(LONGEST_WAIT, pause * 2);
      }
      await rest(next);
    }
  };
  run().catch((error) => {
    if (!signal.aborted && !isAbort(error)) failed(error);
  });
  return nudge;
}
