// A client as a front end has it: openapi-typescript's types of /openapi.json, and openapi-fetch to call by them.
// Uploads, waits, lists, and meets problems; prints what it saw as one JSON document.
//
//     node client.mjs URL TOKEN < a picture

import createClient from "openapi-fetch";
import type { components, paths } from "./schema.mjs";

declare const process: { argv: string[]; stdin: AsyncIterable<Uint8Array> };
type Media = components["schemas"]["Media"];

const [, , url = "", token = ""] = process.argv;
const api = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${token}` } });
const stranger = createClient<paths>({ baseUrl: url });

// The types have a file's bytes as a text: what a form makes of it is said here.
function asForm(name: string, content: BlobPart) {
  return {
    body: { file: "" },
    bodySerializer: () => {
      const form = new FormData();
      form.set("file", new Blob([content]), name);
      return form;
    },
  };
}

async function bytesOf(input: AsyncIterable<Uint8Array>): Promise<Uint8Array<ArrayBuffer>> {
  const pieces: Uint8Array[] = [];
  for await (const piece of input) pieces.push(piece);
  return new Uint8Array(await new Blob(pieces as BlobPart[]).arrayBuffer());
}

async function upload(name: string, content: BlobPart): Promise<Media> {
  const params = { header: { Prefer: "respond-async" } };
  const { data, error } = await api.POST("/detect", { params, ...asForm(name, content) });
  if (error) throw new Error(`${error.status} ${error.type}: ${error.detail}`);
  if (!("delivery" in data.media)) throw new Error("an item that was not detected in memory has a delivery");
  return data.media;
}

async function ended(id: string): Promise<Media> {
  for (;;) {
    const { data, error } = await api.GET("/media/{media_id}", { params: { path: { media_id: id } } });
    if (error) throw new Error(error.detail);
    if (data.run?.state === "done" || data.run?.state === "failed") return data;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function problems(picture: Uint8Array<ArrayBuffer>) {
  const wrongName = await api.POST("/media", asForm("notes.txt", "text"));
  const other = picture.slice();
  const at = other.length >> 2; // outside the sample, so the id is the same
  other[at] = (other[at] ?? 0) ^ 0xff;
  const collision = await api.POST("/media", asForm("other.jpg", other));
  const nobody = await stranger.GET("/me");
  const unknown = await api.GET("/media/{media_id}", { params: { path: { media_id: "0123456789abcdef" } } });
  const found = [wrongName.error, collision.error, nobody.error, unknown.error];
  const collided = collision.error?.type === "urn:detections:problem:media-id-collision" ? collision.error : undefined;
  return { types: found.map((problem) => problem?.type), mediaUrl: collided?.mediaUrl };
}

const picture = await bytesOf(process.stdin);
const media = await upload("astronaut.jpg", picture);
const record = await ended(media.id);
const result = await api.GET("/media/{media_id}/detections", { params: { path: { media_id: media.id } } });
const list = await api.GET("/media", { params: { query: { type: "Image", limit: 10 } } });
console.log(
  JSON.stringify({
    id: record.id,
    state: record.run?.state,
    labels: result.data?.annotations.flatMap((frame) => frame.detections.map((found) => found.label)),
    listed: list.data?.items.map((item) => item.name),
    ...(await problems(picture)),
  }),
);
