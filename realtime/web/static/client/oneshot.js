/** One request, one answer: chat, embeddings, images, vision, speech, transcription. Fields go out under their names here. */

import { errorFrom, InfraiError } from "./errors.js";
import { postJson, request } from "./http.js";

const BATCH_POLL_MS = [200, 10_000];

export class OneShot {
  #baseUrl;
  #bearer;

  /** `bearer`: gives the API key, or throws what is to be said when there is none. */
  constructor(baseUrl, bearer) {
    this.#baseUrl = baseUrl;
    this.#bearer = bearer;
  }

  /** A ChatResult; a BatchJob where `batch_mode` takes longer than `timeout_seconds`. */
  async chat({ signal, ...options } = {}) {
    if (options.stream) return this.#whole(this.streamChat({ signal, ...options }));
    return this.#post("chat", options, signal);
  }

  /** Chunks as they come. Leaving the loop, or aborting `signal`, ends the answer at the vendor too. */
  async *streamChat({ signal, ...options } = {}) {
    const response = await request(`${this.#baseUrl}/v1/ai/chat`, {
      method: "POST",
      headers: { "Content-Type": "application/json", Authorization: `Bearer ${this.#bearer()}` },
      body: JSON.stringify({ ...options, stream: true }),
      signal,
    });
    for await (const { kind, data } of events(response, signal)) {
      if (kind === "error") throw errorFrom(parsed(data), response);
      if (data === "[DONE]") return;
      yield parsed(data);
    }
    throw new InfraiError("stream_broken", "The answer stopped in the middle.", { retryable: true });
  }

  embed({ signal, ...options } = {}) {
    return this.#post("embed", options, signal);
  }

  image({ signal, ...options } = {}) {
    return this.#post("image", options, signal);
  }

  async vision({ signal, images = [], ...options } = {}) {
    return this.#post("vision", { ...options, images: await Promise.all(images.map(source)) }, signal);
  }

  tts({ signal, ...options } = {}) {
    return this.#post("tts", options, signal);
  }

  async asr({ signal, audio, ...options } = {}) {
    return this.#post("asr", { ...options, audio: await source(audio) }, signal);
  }

  /** The result of a batch job, once there is one. */
  async wait(job, { signal } = {}) {
    for (let pause = BATCH_POLL_MS[0]; ; pause = Math.min(BATCH_POLL_MS[1], 1.5 * pause)) {
      const headers = { Authorization: `Bearer ${this.#bearer()}` };
      const response = await request(`${this.#baseUrl}/v1/ai/batches/${encodeURIComponent(job.id)}`, { headers, signal });
      const found = await response.json();
      if (found.result) return found.result;
      if (found.error) throw errorFrom(found, response);
      if (found.status === "cancelled") throw new InfraiError("batch_cancelled", "The batch job was cancelled.");
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  async #post(method, body, signal) {
    return postJson(`${this.#baseUrl}/v1/ai/${method}`, body, { bearer: this.#bearer(), signal });
  }

  /** What a whole answer would have been, from its chunks. */
  async #whole(chunks) {
    const texts = [];
    const calls = new Map();
    let last = {};
    for await (const chunk of chunks) {
      if (chunk.delta.content) texts.push(chunk.delta.content);
      for (const made of chunk.delta.tool_calls ?? []) addCall(calls, made);
      last = chunk;
    }
    const { delta, index, ...rest } = last;
    const content = texts.length || !calls.size ? texts.join("") : null;
    return calls.size ? { content, tool_calls: [...calls.values()], ...rest } : { content, ...rest };
  }
}

function addCall(calls, { index, id, function: { name, arguments: more } }) {
  if (!calls.has(index)) calls.set(index, { id, type: "function", function: { name, arguments: "" } });
  calls.get(index).function.arguments += more ?? "";
}

/** `{url}` or `{base64, mime?}` as they are; an address, bytes or a Blob become one of them. */
async function source(given) {
  if (typeof given === "string" || given instanceof URL) return { url: String(given) };
  if (given instanceof Blob) given = await given.arrayBuffer();
  if (given instanceof ArrayBuffer) given = new Uint8Array(given);
  if (!(given instanceof Uint8Array)) return given;
  const pieces = [];
  for (let at = 0; at < given.length; at += 0x8000) pieces.push(String.fromCharCode(...given.subarray(at, at + 0x8000)));
  return { base64: btoa(pieces.join("")) };
}

function parsed(data) {
  try {
    return JSON.parse(data);
  } catch (cause) {
    throw new InfraiError("bad_response", "The server sent an event that is not JSON.", { cause });
  }
}

/** Kind and data of each server-sent event; comments are passed over. The connection is closed when it is left. */
async function* events(response, signal) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let kind = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("event:")) kind = line.slice(6).trim();
        else if (line.startsWith("data:")) yield { kind, data: line.slice(5).trim() };
        else if (line.trim() === "") kind = "";
      }
    }
  } catch (error) {
    if (error instanceof InfraiError) throw error;
    if (signal?.aborted) throw new InfraiError("aborted", "The request was given up.", { cause: error });
    throw new InfraiError("stream_broken", "The answer stopped in the middle.", { cause: error, retryable: true });
  } finally {
    await reader.cancel().catch(() => {});
  }
}
