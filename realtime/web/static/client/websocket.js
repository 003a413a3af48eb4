/**
 * The WebSocket transport, for networks that let no UDP through: sound both ways in base64, over TCP. Later than WebRTC
 * by what TCP costs, but it gets through wherever web pages do.
 *
 * The server plays nothing here, so this side does its part too: it stops the answer when the caller speaks over it, says
 * how much was heard, and tells the same `output_audio_buffer.*` events that WebRTC calls have.
 */

import { InfraiError } from "./errors.js";

const WIRE_PER_MS = 24;
const OPEN_MS = 6000;
/** Bytes that wait to be sent: about 20 s of speech. What is said beyond that is dropped, the newest words count. */
const MAX_WAITING_BYTES = 1 << 20;

export async function connectWebSocket({ baseUrl, token, track, audioContext, signal, onEvent, onAudio, onClosed }) {
  await audioContext.audioWorklet.addModule(new URL("./worklet.js", import.meta.url));
  const url = `${baseUrl.replace(/^http/, "ws")}/v1/ai/realtime`;
  const socket = new WebSocket(url, ["realtime", `openai-insecure-api-key.${token}`]);
  await opened(socket, signal);
  return new SocketCall(socket, audioContext, { track, onEvent, onAudio, onClosed });
}

function opened(socket, signal) {
  return new Promise((resolve, reject) => {
    const fail = (code, message) => {
      socket.onopen = socket.onclose = socket.onerror = null;
      clearTimeout(timer);
      socket.close();
      reject(new InfraiError(code, message, { retryable: true }));
    };
    const refused = () => fail("no_media_path", "Neither UDP nor a WebSocket gets through to the server. Try another network.");
    const timer = setTimeout(refused, OPEN_MS);
    socket.onclose = socket.onerror = refused;
    signal?.addEventListener("abort", () => fail("aborted", "The call was given up."), { once: true });
    socket.onopen = () => {
      clearTimeout(timer);
      socket.onerror = null;
      resolve();
    };
  });
}

class SocketCall {
  name = "websocket";
  #socket;
  #context;
  #tell;
  #source;
  #capture;
  #player;
  /** Pieces of answers that may still be heard: `{ response_id, item_id, content_index, from, to }`, in samples. */
  #pieces = [];
  #pushed = 0;
  #played = 0;
  #sounding;
  #answering = false;

  constructor(socket, context, { track, onEvent, onAudio, onClosed }) {
    this.#socket = socket;
    this.#context = context;
    this.#tell = onEvent;
    this.#player = new AudioWorkletNode(context, "infrai-playback", { numberOfInputs: 0, outputChannelCount: [1] });
    this.#capture = new AudioWorkletNode(context, "infrai-capture", { numberOfOutputs: 0, channelCount: 1, channelCountMode: "explicit" });
    this.#player.port.onmessage = ({ data }) => this.#onPlayed(data.played);
    this.#capture.port.onmessage = ({ data }) => this.#onCaptured(data);
    const out = context.createMediaStreamDestination();
    this.#player.connect(out);
    this.replaceTrack(track);
    socket.onmessage = ({ data }) => this.#onMessage(data);
    socket.onclose = ({ code }) => {
      this.close();
      onClosed(code === 1006 ? "connection_lost" : "ended_by_server");
    };
    onAudio(out.stream);
  }

  async replaceTrack(track) {
    this.#source?.disconnect();
    this.#source = track && this.#context.createMediaStreamSource(new MediaStream([track]));
    this.#source?.connect(this.#capture);
  }

  send(text) {
    if (JSON.parse(text).type !== "output_audio_buffer.clear") this.#socket.send(text);
    else {
      this.#cut();
      if (this.#answering) this.#send({ type: "response.cancel" });
    }
  }

  #send(event) {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(event));
  }

  async stats() {
    return new Map();
  }

  close() {
    this.#socket.onclose = null;
    this.#socket.close(1000);
    for (const node of [this.#source, this.#capture, this.#player]) node?.disconnect();
    this.#capture.port.onmessage = this.#player.port.onmessage = null;
  }

  #onCaptured(samples) {
    if (this.#socket.bufferedAmount > MAX_WAITING_BYTES) return;
    const bytes = new Uint8Array(samples.buffer);
    this.#send({ type: "input_audio_buffer.append", audio: btoa(String.fromCharCode(...bytes)) });
  }

  #onMessage(text) {
    const event = JSON.parse(text);
    switch (event.type) {
      case "response.output_audio.delta":
        this.#onAudio(event);
        return;
      case "response.created":
        this.#answering = true;
        break;
      case "response.done":
        this.#answering = false;
        break;
    }
    this.#tell(text);
    if (event.type === "input_audio_buffer.speech_started") this.#cut();
    if (event.type === "response.done") this.#checkEnd();
  }

  #onAudio({ response_id, item_id, content_index, delta }) {
    const bytes = Uint8Array.from(atob(delta), (character) => character.charCodeAt(0));
    const samples = new Int16Array(bytes.buffer, 0, bytes.length >> 1);
    const last = this.#pieces.at(-1);
    if (last?.item_id === item_id && last.content_index === content_index) last.to += samples.length;
    else this.#pieces.push({ response_id, item_id, content_index, from: this.#pushed, to: this.#pushed + samples.length });
    this.#pushed += samples.length;
    this.#player.port.postMessage(samples, [samples.buffer]);
    if (this.#sounding !== response_id) {
      this.#sounding = response_id;
      this.#buffer("started");
    }
  }

  #onPlayed(played) {
    if (played <= this.#played) return; // told before a cut, heard of after it
    this.#played = played;
    while (this.#pieces.length > 1 && this.#pieces[0].to <= played) this.#pieces.shift();
    this.#checkEnd();
  }

  #checkEnd() {
    if (this.#sounding === undefined || this.#answering || this.#played < this.#pushed) return;
    this.#buffer("stopped");
    this.#sounding = undefined;
    this.#pieces = [];
  }

  /** Silence, and the server learns how much of each answer was heard. */
  #cut() {
    if (this.#sounding === undefined) return;
    this.#player.port.postMessage({ to: this.#pushed });
    this.#buffer("cleared");
    for (const { item_id, content_index, from, to } of this.#pieces) {
      if (to <= this.#played) continue;
      const heard = Math.max(0, Math.floor((this.#played - from) / WIRE_PER_MS));
      this.#send({ type: "conversation.item.truncate", item_id, content_index, audio_end_ms: heard });
    }
    this.#pieces = [];
    this.#played = this.#pushed;
    this.#sounding = undefined;
  }

  #buffer(what) {
    const event = { type: `output_audio_buffer.${what}`, event_id: `event_local_${crypto.randomUUID().slice(0, 8)}`, response_id: this.#sounding };
    this.#tell(JSON.stringify(event));
  }
}
