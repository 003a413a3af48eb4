/**
 * One live call from a browser: microphone in, answer out, events both ways.
 *
 *   starting --microphone and token at hand--> connecting --audio and events flow--> live --hangUp(), the other side--> closed
 *       \____________________________ any failure, hangUp() ______________________________________________________/
 *
 * Within `live`, `activity` says whose turn it is: listening, hearing (the caller speaks), thinking, speaking.
 */

import { Activity } from "./activity.js";
import { InfraiError } from "./errors.js";
import { Microphone, Speaker } from "./sound.js";
import { connectWebRtc } from "./webrtc.js";
import { connectWebSocket } from "./websocket.js";
import { Words } from "./words.js";

/** Ours, which a server sends when it is asked: where a turn's time went, the words as they come, why a call ends. */
const INCLUDE = ["realtime.turn.metrics", "realtime.input_transcript.partial", "realtime.call.ending"];
const LEVELS_MS = 50;
/** Events kept until the call is up, at most. */
const MAX_WAITING = 100;

const REASONS = {
  hangup: "You hung up.",
  ended_by_server: "The server ended the call.",
  ended_by_api: "The call was ended by whoever runs the server.",
  max_duration: "The call has reached its longest duration.",
  server_shutdown: "The server is being stopped or restarted.",
  connection_lost: "The connection was lost. Check the network and call again.",
};

export class LiveCall extends EventTarget {
  #baseUrl;
  #mint;
  #options;
  #state = "starting";
  #activity = new Activity();
  #abort = new AbortController();
  #words = new Words();
  #speaker;
  #microphone;
  #transport;
  #waiting = [];
  #levels;
  /** Why the server is about to end the call, when it said so. */
  #ending;
  #muted = false;
  #onPageHide = () => this.hangUp();

  constructor(baseUrl, mint, options = {}) {
    super();
    this.#baseUrl = baseUrl;
    this.#mint = mint;
    this.#options = options;
    this.#speaker = new Speaker(options.element);
    /** Resolves when both can hear each other; rejects with the InfraiError that `closed` tells, too. */
    this.ready = this.#connect();
    this.ready.catch(() => {});
  }

  get state() {
    return this.#state;
  }

  get activity() {
    return this.#activity.current;
  }

  get muted() {
    return this.#muted;
  }

  /** What the token said: session_id, agent, model, voice; undefined before that. */
  get session() {
    return this.#session;
  }
  #session;

  /** Which transport carries the call; undefined before it is live. */
  get transport() {
    return this.#transport?.name;
  }

  /** `addEventListener` with the event's `detail` in hand; gives the function that takes it back. */
  on(type, listener) {
    const wrapped = (event) => listener(event.detail, event);
    this.addEventListener(type, wrapped);
    return () => this.removeEventListener(type, wrapped);
  }

  /** One OpenAI Realtime client event. Before the call is up it waits; after the end it is an error. */
  send(event) {
    if (this.#state === "closed") throw new InfraiError("call_ended", "The call is over.");
    if (this.#transport) {
      this.#transport.send(JSON.stringify(event));
      this.#tell("sent", event);
    } else if (this.#waiting.length < MAX_WAITING) {
      this.#waiting.push(event);
    } else {
      throw new InfraiError("too_early", `At most ${MAX_WAITING} events can wait for the call to come up.`);
    }
  }

  /** Typed text as the caller's turn. What is being said is cut, as if the caller had spoken over it. */
  say(text) {
    if (this.activity === "speaking" || this.activity === "thinking") this.interrupt();
    this.send({ type: "conversation.item.create", item: { type: "message", role: "user", content: [{ type: "input_text", text }] } });
    this.send({ type: "response.create" });
  }

  /** Stop the answer without saying anything. */
  interrupt() {
    this.send({ type: "output_audio_buffer.clear" });
  }

  mute() {
    this.#setMuted(true);
  }

  unmute() {
    this.#setMuted(false);
  }

  #setMuted(muted) {
    this.#muted = muted;
    if (this.#microphone) this.#microphone.muted = muted;
    this.#tell("microphone", { label: this.#microphone?.label ?? "", muted, lost: false });
  }

  /** `{ input }`: a microphone's deviceId; `{ output }`: a loudspeaker's. "" means the system's choice. */
  async setDevice({ input, output } = {}) {
    if (input !== undefined && this.#microphone) await this.#microphone.choose(input);
    if (output !== undefined) await this.#speaker.choose(output);
  }

  /** After `blocked`: call this inside a tap. */
  async unlock() {
    await this.#speaker.unlock();
  }

  /** Loudness right now, 0 to 1. */
  levels() {
    return { input: this.#muted ? 0 : this.#speaker.input.level(), output: this.#speaker.output.level() };
  }

  /** The loudness of each frequency band of one side, into `bytes` (0 to 255), for drawing. */
  spectrum(side, bytes) {
    this.#speaker[side].spectrum(bytes);
  }

  /** The browser's own figures about the connection (RTCStatsReport); undefined before the call is live. */
  stats() {
    return this.#transport?.stats();
  }

  hangUp() {
    this.#end("hangup");
  }

  async #connect() {
    const signal = this.#abort.signal;
    try {
      this.#tell("state", { state: "starting" });
      const [token] = await Promise.all([this.#mint({ signal }), this.#openMicrophone()]);
      this.#checkOpen();
      const minted = asToken(token);
      this.#session = without(minted, "token");
      this.#setState("connecting");
      const transport = await this.#openTransport(minted);
      this.#checkOpen(transport);
      this.#transport = transport;
      if (this.#microphone) this.#microphone.replace = (track) => this.#replaceTrack(track);
      this.#begin();
    } catch (error) {
      const known = error instanceof InfraiError ? error : new InfraiError("failed", String(error?.message ?? error), { cause: error });
      this.#end(known.code, known);
      throw known;
    }
  }

  async #openMicrophone() {
    const wish = this.#options.microphone ?? true;
    if (wish === false) return;
    const microphone = await Microphone.open(wish, (change) => this.#onMicrophone(change));
    if (this.#state === "closed") {
      microphone.close();
      return;
    }
    this.#microphone = microphone;
    microphone.muted = this.#muted;
    this.#onMicrophone({ label: microphone.label, lost: false });
  }

  #onMicrophone({ label, lost }) {
    this.#speaker.input.listen(this.#microphone?.stream);
    this.#tell("microphone", { label, lost, muted: this.#muted });
  }

  async #replaceTrack(track) {
    await this.#transport.replaceTrack(track);
  }

  /** Each transport in turn; the last one's failure is the call's. */
  async #openTransport(minted) {
    const transports = this.#options.transports ?? [connectWebRtc, connectWebSocket];
    let failure;
    for (const connect of transports) {
      if (failure) {
        this.#tell("fallback", { error: failure });
        minted = asToken(await this.#mint({ signal: this.#abort.signal })); // a token opens one call, and that one was tried
        this.#checkOpen();
      }
      try {
        return await connect({
          baseUrl: this.#baseUrl,
          token: minted.token,
          iceServers: minted.ice_servers ?? [],
          track: this.#microphone?.track,
          audioContext: this.#speaker.context,
          signal: this.#abort.signal,
          onEvent: (text) => this.#onMessage(text),
          onAudio: (stream) => this.#speaker.play(stream).catch(() => this.#tell("blocked", {})),
          onClosed: (reason) => this.#end(this.#ending ?? reason),
        });
      } catch (error) {
        if (error.code !== "no_media_path") throw error;
        failure = error;
      }
    }
    throw failure;
  }

  #begin() {
    this.#setState("live");
    globalThis.addEventListener?.("pagehide", this.#onPageHide);
    this.#levels = setInterval(() => this.#tell("levels", this.levels()), LEVELS_MS);
    const include = [...INCLUDE, ...(this.#options.include ?? [])];
    this.send({ type: "session.update", session: { type: "realtime", ...this.#options.session, include } });
    for (const event of this.#waiting.splice(0)) this.send(event);
  }

  #checkOpen(transport) {
    if (this.#state !== "closed") return;
    transport?.close();
    throw new InfraiError("aborted", "The call was given up.");
  }

  #onMessage(text) {
    const event = JSON.parse(text);
    if (event.type === "conversation.item.truncated") {
      this.send({ type: "conversation.item.retrieve", item_id: event.item_id });
    }
    if (event.type === "realtime.call.ending") this.#ending = event.reason;
    for (const entry of this.#words.take(event)) this.#tell("transcript", entry);
    this.#follow(event);
    if (event.type === "realtime.turn.metrics") this.#tell("turn", { responseId: event.response_id, metrics: event.metrics });
    if (event.type !== "error") this.#tell(event.type, event); // ours named `error` would clash: it comes as `problem`
    else this.#tell("problem", event.error);
    this.#tell("event", event);
  }

  #setState(state) {
    this.#state = state;
    this.#tell("state", { state });
  }

  #follow(event) {
    const before = this.activity;
    this.#activity.take(event);
    if (this.activity !== before) this.#tell("activity", { activity: this.activity });
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }

  #end(reason, error) {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#abort.abort();
    clearInterval(this.#levels);
    globalThis.removeEventListener?.("pagehide", this.#onPageHide);
    this.#transport?.close();
    this.#microphone?.close();
    this.#speaker.close();
    const message = error?.message ?? REASONS[reason] ?? reason;
    this.#tell("state", { state: "closed" });
    this.#tell("closed", { reason, message, error });
  }
}

function asToken(token) {
  return typeof token === "string" ? { token } : token;
}

function without(object, name) {
  const { [name]: _, ...rest } = object;
  return rest;
}
