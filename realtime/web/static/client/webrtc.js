/**
 * The WebRTC transport: one offer over HTTP, then audio both ways and events on the `oai-events` channel.
 *
 * A transport is a function like `connectWebRtc`: it is given `{ baseUrl, token, iceServers, track, signal, onEvent,
 * onAudio, onClosed }` and resolves, once audio and events flow, to `{ name, send(text), replaceTrack(track), stats(),
 * close() }`. It rejects with an InfraiError when it cannot connect, and calls `onClosed(reason)` once, when an open
 * one ends by itself.
 */

import { InfraiError } from "./errors.js";
import { request } from "./http.js";

export const CONNECT_MS = 4000;
/** A path that breaks often comes back (Wi-Fi to mobile, a lift); after this long nobody waits any more. */
const RECOVER_MS = 6000;
/** Candidates found within this time of each other go out in one request. */
const TRICKLE_MS = 50;

export async function connectWebRtc({ baseUrl, token, iceServers, track, signal, onEvent, onAudio, onClosed }) {
  const attempt = new Attempt({ baseUrl, token, onEvent, onAudio, onClosed });
  const give_up = () => attempt.close();
  signal?.addEventListener("abort", give_up, { once: true });
  try {
    return await attempt.connect(iceServers, track);
  } catch (error) {
    attempt.close();
    throw error;
  } finally {
    signal?.removeEventListener("abort", give_up);
  }
}

/**
 * CONNECTING --channel open, ICE and DTLS up--> OPEN --close(), the other side, path lost--> CLOSED
 *     \_______________ time-out, failure, close() _______________________________________/
 */
class Attempt {
  name = "webrtc";
  #options;
  #state = "connecting";
  #connection;
  #channel;
  #sender;
  #location;
  #candidates = [];
  #trickling;
  #recovering;
  #settle = {};

  constructor(options) {
    this.#options = options;
  }

  async connect(iceServers, track) {
    const connection = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" });
    this.#connection = connection;
    const streams = track ? [new MediaStream([track])] : [];
    this.#sender = connection.addTransceiver(track ?? "audio", { direction: "sendrecv", streams }).sender;
    this.#channel = connection.createDataChannel("oai-events");
    const up = new Promise((resolve, reject) => (this.#settle = { resolve, reject }));
    up.catch(() => {}); // it may fail while the offer is still being answered
    this.#listen();
    await connection.setLocalDescription();
    await this.#offer(connection.localDescription.sdp);
    const timer = setTimeout(() => this.#settle.reject(noPath()), CONNECT_MS);
    await up.finally(() => clearTimeout(timer));
    this.#state = "open";
    return this;
  }

  #listen() {
    const connection = this.#connection;
    connection.ontrack = ({ track, streams }) => this.#options.onAudio(streams[0] ?? new MediaStream([track]));
    connection.onicecandidate = ({ candidate }) => candidate?.candidate && this.#trickle(candidate);
    connection.onconnectionstatechange = () => this.#onState(connection.connectionState);
    this.#channel.onopen = () => this.#checkUp();
    this.#channel.onclose = () => this.#end("ended_by_server");
    this.#channel.onmessage = ({ data }) => this.#options.onEvent(data);
  }

  async #offer(sdp) {
    const { baseUrl, token } = this.#options;
    const url = `${baseUrl}/v1/ai/realtime/calls`;
    const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/sdp" };
    const response = await request(url, { method: "POST", headers, body: sdp });
    const location = response.headers.get("Location");
    this.#location = location && new URL(location, url).href;
    const answer = await response.text();
    if (this.#state === "closed") {
      this.#hangUp();
      throw new InfraiError("aborted", "The call was given up.");
    }
    await this.#connection.setRemoteDescription({ type: "answer", sdp: answer });
    this.#trickle();
  }

  /** Tell the server where we can be reached: needed where only it can make the first step. */
  #trickle(candidate) {
    if (candidate) this.#candidates.push(candidate);
    if (!this.#location || this.#trickling || this.#candidates.length === 0) return;
    this.#trickling = setTimeout(() => {
      this.#trickling = undefined;
      const lines = this.#candidates.splice(0).map((found) => `a=${found.candidate}\r\n`);
      const sdp = this.#connection.localDescription?.sdp ?? "";
      const [media, ufrag, password] = [/^m=.*$/m, /^a=ice-ufrag:.*$/m, /^a=ice-pwd:.*$/m].map((line) => sdp.match(line)?.[0].trim());
      const body = `${ufrag}\r\n${password}\r\n${media}\r\na=mid:0\r\n${lines.join("")}`;
      this.#fetch("PATCH", { "Content-Type": "application/trickle-ice-sdpfrag" }, body);
    }, TRICKLE_MS);
  }

  #checkUp() {
    if (this.#connection.connectionState === "connected" && this.#channel.readyState === "open") this.#settle.resolve();
  }

  #onState(state) {
    clearTimeout(this.#recovering);
    if (state === "connected") this.#checkUp();
    else if (state === "disconnected") this.#recovering = setTimeout(() => this.#end("connection_lost"), RECOVER_MS);
    else if (state === "failed") this.#end("connection_lost");
    else if (state === "closed") this.#end("ended_by_server");
  }

  #end(reason) {
    if (this.#state === "connecting") this.#settle.reject(noPath());
    if (this.#state !== "open") return;
    this.close();
    this.#options.onClosed(reason);
  }

  send(text) {
    this.#channel.send(text);
  }

  async replaceTrack(track) {
    await this.#sender.replaceTrack(track);
  }

  stats() {
    return this.#connection.getStats();
  }

  close() {
    if (this.#state === "closed") return;
    this.#state = "closed";
    clearTimeout(this.#trickling);
    clearTimeout(this.#recovering);
    this.#settle.reject?.(new InfraiError("aborted", "The call was given up."));
    this.#hangUp();
    this.#connection?.close();
  }

  #hangUp() {
    if (this.#location) this.#fetch("DELETE", {});
    this.#location = undefined;
  }

  /** Best effort: the server notices by itself, only later. `keepalive` lets it leave a page that is being closed. */
  #fetch(method, headers, body) {
    const all = { ...headers, Authorization: `Bearer ${this.#options.token}` };
    fetch(this.#location, { method, headers: all, body, keepalive: true }).catch(() => {});
  }
}

function noPath() {
  const message = `No media path to the server within ${CONNECT_MS / 1000} seconds: the offer was answered, but no packet got through. A firewall or VPN may block UDP; try another network. Whoever runs the server: open its UDP ports, set its public address, or add a TURN server.`;
  return new InfraiError("no_media_path", message, { retryable: true });
}
