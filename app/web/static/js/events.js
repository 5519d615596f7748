/**
 * A media item's server-sent events, read with fetch, because EventSource cannot send an Authorization header.
 */

import { Problem } from "./problem.js";
import { sleep } from "./time.js";

const LONGEST_WAIT = 30;

/** Yields each event of a stream as `{id, name, data}`; `id` may be `null`. Comments are skipped. */
async function* readEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      held += value;
      const blocks = held.split(/\r?\n\r?\n/);
      held = blocks.pop();
      yield* blocks.map(parse).filter((event) => event !== null);
    }
  } finally {
    await reader.cancel().catch(() => {}); // a failed stream cannot be cancelled
  }
}

function parse(block) {
  const event = { id: null, name: "message", data: "" };
  const data = [];
  for (const line of block.split(/\r?\n/)) {
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === "id") event.id = value;
    else if (field === "event") event.name = value;
    else if (field === "data") data.push(value);
  }
  if (!data.length) return null;
  return { ...event, data: JSON.parse(data.join("\n")) };
}

/**
 * Follows a media item until its run has ended, resuming after each broken connection with the last event
 * received. `on(name, data)` is called for each event. Resolves to the record; rejects with a Problem that is not
 * transient, or when the signal is aborted.
 */
export async function follow(api, mediaId, { signal, on }) {
  let last = null;
  let pause = 0.5;
  for (;;) {
    try {
      const headers = last === null ? {} : { "Last-Event-ID": last };
      const response = await api.request(`/media/${mediaId}/events`, { signal, headers });
      for await (const event of readEvents(response.body)) {
        last = event.id ?? last;
        pause = 0.5;
        on(event.name, event.data);
        if (event.name === "done") return event.data;
      }
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof Problem && !error.passes) throw error;
      pause = Math.max(pause, error.retryAfter ?? 0);
    }
    await sleep(pause, signal);
    pause = Math.min(LONGEST_WAIT, pause * 2);
  }
}
