/**
 * JavaScript client for an infrai-realtime server: an ES module that runs as it stands, in browsers and in Node.
 *
 *   import { InfraiClient } from "https://your-server/client.js";
 *   const client = new InfraiClient({ apiKey: "ifr_pk_proj_..." });   // a page key: mints tokens, from your origin only
 *   const call = client.ai.live();                                    // inside a tap: it unlocks sound
 *   call.on("transcript", ({ role, text }) => console.log(role, text));
 *
 *   const { content } = await client.ai.chat({ messages: "Hello" });  // on a server: needs the scope `chat`
 *
 * Types: client.d.ts. Keys with more scopes than `mint` stay on servers: mint there, and give `live()` the token.
 */

import { LiveCall } from "./client/call.js";
import { InfraiError } from "./client/errors.js";
import { postJson } from "./client/http.js";
import { OneShot } from "./client/oneshot.js";
import { connectWebRtc } from "./client/webrtc.js";

export { connectWebRtc, InfraiError, LiveCall };
export { connectWebSocket } from "./client/websocket.js";

const LOCAL_SERVER = "http://127.0.0.1:8080";

export class InfraiClient {
  #apiKey;
  #baseUrl;

  /** `apiKey`: may be left out where every call is given its token. `baseUrl`: default, the server this file came from. */
  constructor({ apiKey, baseUrl } = {}) {
    const environment = globalThis.process?.env ?? {};
    this.#apiKey = apiKey ?? environment.INFRAI_API_KEY;
    this.#baseUrl = (baseUrl ?? environment.INFRAI_BASE_URL ?? ownServer()).replace(/\/+$/, "");
    const oneShot = new OneShot(this.#baseUrl, () => this.#key());
    this.ai = Object.freeze({
      chat: (options) => oneShot.chat(options),
      streamChat: (options) => oneShot.streamChat(options),
      embed: (options) => oneShot.embed(options),
      image: (options) => oneShot.image(options),
      vision: (options) => oneShot.vision(options),
      tts: (options) => oneShot.tts(options),
      asr: (options) => oneShot.asr(options),
      wait: (job, options) => oneShot.wait(job, options),
      liveToken: (options) => this.#liveToken(options),
      live: (options) => this.#live(options),
    });
  }

  get baseUrl() {
    return this.#baseUrl;
  }

  #key() {
    if (this.#apiKey) return this.#apiKey;
    throw new InfraiError("missing_credentials", "An API key is needed: new InfraiClient({ apiKey }).");
  }

  async #liveToken({ agent, model, voice, session, ttl_seconds, signal } = {}) {
    const wish = { agent, model, voice, session, ttl_seconds };
    return postJson(`${this.#baseUrl}/v1/ai/realtime/token`, wish, { bearer: this.#key(), signal });
  }

  /** A call that begins at once. Use it inside a click or tap handler, before any `await`: that is what unlocks sound. */
  #live({ token, agent, model, voice, ttl_seconds, ...options } = {}) {
    const mint = ({ signal }) =>
      token === undefined
        ? this.#liveToken({ agent, model, voice, ttl_seconds, signal })
        : typeof token === "function"
          ? token({ agent, model, voice, ttl_seconds, signal })
          : token;
    // A token that is given opens one call: there is none left for a second way to connect.
    if (token !== undefined && typeof token !== "function") options.transports ??= [connectWebRtc];
    return new LiveCall(this.#baseUrl, mint, options);
  }
}

/** The server that this module was loaded from, where it was loaded over HTTP. */
function ownServer() {
  const own = import.meta.url ?? ""; // bundlers leave it out of scripts that are no modules
  return own.startsWith("http") ? new URL(".", own).href : LOCAL_SERVER;
}
