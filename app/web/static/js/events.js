/**
 * A media's server-sent events, read with fetch: the browser's own EventSource can send no Authorization header.
 */

import { Problem } from "./problem.js";
import { sleep } from "./time.js";

const LONGEST_WAIT = 30;

/** Each event of a stream as `{id, name, data}`; `id` is `null` where it has none. Comments are left out. */
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
    await reader.cancel().catch(() => {}); // a stream that has failed cannot be cancelled, and need not be
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
 * Follows a media until its run has ended, however often the connection breaks: resumed after the last event that
 * came. `on(name, data)` is told each event. Resolves to the media's record; rejects with a Problem that does not
 * pass, or when the signal is aborted.
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
