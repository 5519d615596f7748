/** Polling, only while the tab is visible. */

import { isAbort } from "./api.js";
import { sleep } from "./time.js";

const LEAST_WAIT = 0.3;
const LONGEST_WAIT = 30;

/**
 * Calls `refresh` now and repeatedly until the signal is aborted; not while the tab is hidden, and at
 * once when it is shown again. `refresh` returns the seconds until its next call. After an error `failed` is called,
 * and the waits grow. Returns a function that triggers a call at once.
 */
export function poll(refresh, { signal, failed }) {
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
      signal.throwIfAborted(); // woken by the caller
    }
  };

  const run = async () => {
    while (!signal.aborted) {
      asked = false;
      let next;
      try {
        next = await refresh();
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
