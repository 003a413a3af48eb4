/** Types of client.js: a client for an infrai-realtime server, for browsers and Node. */

export interface ClientOptions {
  /**
   * An API key. In a web page only one made for it (`realtime keys create --scopes mint --origin https://app.example`);
   * leave it out where every call is given its token. In Node the default is `INFRAI_API_KEY`.
   */
  apiKey?: string;
  /** The server. Default: where client.js was loaded from; in Node `INFRAI_BASE_URL`, else http://127.0.0.1:8080. */
  baseUrl?: string;
}

export class InfraiClient {
  constructor(options?: ClientOptions);
  readonly baseUrl: string;
  readonly ai: Ai;
}

export interface Ai {
  /** One answer. With `batch_mode` it may be a BatchJob: see `wait`. With `stream` it is still whole. */
  chat(options: ChatOptions & { batch_mode: true }): Promise<ChatResult | BatchJob>;
  chat(options: ChatOptions): Promise<ChatResult>;
  /** Chunks as they come. Leaving the loop ends the answer at the vendor; a broken answer rejects with InfraiError. */
  streamChat(options: ChatOptions): AsyncIterable<ChatStreamChunk>;
  embed(options: EmbedOptions): Promise<EmbedResult>;
  image(options: ImageOptions): Promise<ImageResult>;
  /** Ask about pictures. */
  vision(options: VisionOptions): Promise<ChatResult>;
  tts(options: TtsOptions): Promise<TtsResult>;
  asr(options: AsrOptions): Promise<AsrResult>;
  /** The result of a batch job, once there is one. */
  wait(job: BatchJob, options?: { signal?: AbortSignal }): Promise<ChatResult>;
  /** Mint a token for one live call. Rejects with InfraiError. */
  liveToken(options?: LiveTokenOptions): Promise<LiveSessionToken>;
  /**
   * Hold a call from this browser. It begins at once; the call object is there before it is connected, so that no
   * event is missed. Use it inside a tap, before any `await`: that is what lets the page sound.
   */
  live(options?: LiveOptions): LiveCall;
}

/** What every one-shot method takes. */
export interface RequestOptions {
  /** Explicit model id; skips routing. */
  model?: string;
  /** One of the server's configured vendors. */
  vendor?: string;
  /** Total deadline over all attempts; default 60, at most 600. */
  timeout_seconds?: number;
  /** A model stands in for another only up to this multiple of its estimated cost; default 1.5, 0: never. */
  max_cost_multiplier?: number;
  /** Identical retries return the same result for 24 hours. */
  idempotency_key?: string;
  /** Aborting it closes the connection; the vendor's is closed with it, unless the request has an idempotency key. */
  signal?: AbortSignal;
}

export type Prefer = "balanced" | "cheapest" | "smartest";

export interface ChatOptions extends RequestOptions {
  messages: string | ChatMessage[];
  task?: "general" | "reasoning" | "coding" | "long_context";
  prefer?: Prefer;
  /** 0 to 2. */
  temperature?: number;
  max_tokens?: number;
  tools?: Tool[];
  tool_choice?: "auto" | "none" | "required" | { type?: "function"; name?: string; function?: { name: string } };
  response_format?:
    | { type: "text" | "json_object" }
    | { type: "json_schema"; schema: JsonSchema }
    | { type: "json_schema"; json_schema: { name?: string; schema: JsonSchema; strict?: boolean } };
  /** `vendor`: its prompt cache; `infrai`: exact answers kept by the server; `none`. Default `vendor`. */
  cache_strategy?: "vendor" | "infrai" | "none";
  batch_mode?: boolean;
  stream?: boolean;
}

export type JsonSchema = Record<string, unknown>;

export interface ChatMessage {
  role: "system" | "developer" | "user" | "assistant" | "tool";
  content?: string | ContentPart[] | null;
  tool_calls?: ToolCall[];
  tool_call_id?: string;
}

export type ContentPart = { type: "text"; text: string } | { type: "image_url"; image_url: { url: string; detail?: string } };

/** OpenAI's shape, or its content alone. */
export type Tool =
  | { type?: "function"; function: { name: string; description?: string; parameters?: JsonSchema } }
  | { type?: "function"; name: string; description?: string; parameters?: JsonSchema };

export interface ToolCall {
  id: string;
  type: "function";
  /** `arguments`: JSON text as the model wrote it. */
  function: { name: string; arguments: string };
}

export type FinishReason = "stop" | "length" | "tool_calls" | "content_filter";

export interface ChatResult {
  /** null when the model only called tools. */
  content: string | null;
  tool_calls?: ToolCall[];
  finish_reason: FinishReason;
  usage: Usage;
  metadata: Metadata;
}

/** `index` is always 0. The last chunk has `finish_reason`, `usage` and `metadata`. */
export interface ChatStreamChunk {
  delta: { role?: "assistant"; content?: string; tool_calls?: ToolCallDelta[] };
  finish_reason: FinishReason | null;
  index: number;
  usage?: Usage;
  metadata?: Metadata;
}

/** `id` and `name` come with the first of an `index`; the pieces of `arguments` belong together. */
export interface ToolCallDelta {
  index: number;
  id?: string;
  type?: "function";
  function: { name?: string; arguments?: string };
}

export interface Usage {
  input_tokens?: number;
  output_tokens?: number;
  total_tokens?: number;
  cached_tokens?: number;
  prompt_tokens?: number;
  completion_tokens?: number;
  audio_seconds?: number;
  characters?: number;
  images?: number;
}

export interface Metadata {
  request_id: string;
  vendor: string;
  model: string;
  latency_ms: number;
  ttft_ms: number | null;
  /** US dollars; null when a price is not known. */
  cost_usd: number | null;
  cache: "hit" | "miss" | "bypass";
  attempts: { vendor: string; model: string; status: string; ms: number }[];
  failover: boolean;
  idempotent_replay: boolean;
  warnings: string[];
  batch_id?: string;
  /** The share of the price that a vendor's batch API takes off; null when it was none. */
  discount?: number | null;
}

export interface BatchJob {
  id: string;
  object: "batch_job";
  status: "queued" | "running" | "completed" | "failed" | "cancelled";
  poll_url: string;
}

export interface EmbedOptions extends RequestOptions {
  input: string | string[];
  dimensions?: number;
}

export interface EmbedResult {
  /** One vector for each text. */
  embeddings: number[][];
  model: string;
  usage: Usage;
  metadata: Metadata;
}

export interface ImageOptions extends RequestOptions {
  prompt: string;
  /** `1024x1024`, or `auto`. */
  size?: string;
  /** 1 to 10. */
  n?: number;
  prefer?: Prefer;
  /** `["b64"]` adds the bytes. */
  include?: "b64"[];
}

export interface ImageResult {
  /** `url` is signed and expires. */
  images: { url: string; b64?: string }[];
  usage: Usage;
  metadata: Metadata;
}

/** An address that the server fetches, or bytes; a string or URL is an address, Uint8Array and Blob are bytes. */
export type Source = { url: string } | { base64: string; mime?: string } | string | URL | Uint8Array | ArrayBuffer | Blob;

export interface VisionOptions extends RequestOptions {
  prompt: string;
  images: Source[];
  prefer?: Prefer;
  temperature?: number;
  max_tokens?: number;
}

export interface TtsOptions extends RequestOptions {
  input: string;
  voice?: string;
  format?: AudioFormat;
}

/** ogg is Opus; pcm is 16-bit little-endian mono. */
export type AudioFormat = "mp3" | "wav" | "ogg" | "pcm";

export interface TtsResult {
  audio_url: string;
  format: AudioFormat;
  sample_rate: number;
  usage: Usage;
  metadata: Metadata;
}

export interface AsrOptions extends RequestOptions {
  audio: Source;
  /** A hint, such as `en` or `zh`. */
  language?: string;
}

export interface AsrResult {
  text: string;
  language: string | null;
  /** Times in seconds. */
  segments?: Segment[];
  usage: Usage;
  metadata: Metadata;
}

export interface Segment {
  id: number;
  start: number;
  end: number;
  text: string;
  speaker?: string;
  words?: { word: string; start: number; end: number; confidence?: number }[];
}

export interface LiveTokenOptions {
  /** Who answers; `default` without it. */
  agent?: string;
  /** A chat model instead of the agent's, where it allows that. */
  model?: string;
  voice?: string;
  /** 10 to 3600 seconds in which the token can open a call; default 300. */
  ttl_seconds?: number;
  /** Instructions, tools, turn detection of this call. Keys for web pages cannot set it. */
  session?: SessionConfig;
  signal?: AbortSignal;
}

/** An OpenAI Realtime session object; any part of it. */
export type SessionConfig = Record<string, unknown>;

export interface LiveSessionToken {
  session_id: string;
  token: string;
  /** Goes into RTCPeerConnection as it is. */
  ice_servers: RTCIceServer[];
  /** Unix seconds. */
  expires_at: number;
  agent: string;
  model: string | null;
  voice: string | null;
}

export interface LiveOptions extends Omit<LiveTokenOptions, "signal"> {
  /** A token that your own server minted, or a function that gets one: your keys then never reach the browser. */
  token?: string | LiveSessionToken | ((wish: LiveTokenOptions) => Promise<string | LiveSessionToken>);
  /** `true` (default), `false` for typed text only, constraints (`{ deviceId }`), or a track of your own. */
  microphone?: boolean | MediaTrackConstraints | MediaStreamTrack;
  /** Where the answer plays; default: an element that is not shown. */
  element?: HTMLAudioElement;
  /** Further events of the server's own to ask for, beside `realtime.turn.metrics` and partial transcripts. */
  include?: string[];
  /**
   * Ways to connect; the next is tried, with a new token, when no media gets through. Default:
   * `[connectWebRtc, connectWebSocket]`. A `token` that is no function opens one call only, so there is no second try.
   */
  transports?: Transport[];
}

/**
 *   starting --microphone and token at hand--> connecting --audio and events flow--> live --> closed
 *       (any failure, and hangUp(), lead to closed)
 */
export type CallState = "starting" | "connecting" | "live" | "closed";

/** Whose turn it is while the call is live. */
export type Activity = "listening" | "hearing" | "thinking" | "speaking";

export interface TranscriptEntry {
  itemId: string;
  role: "user" | "assistant" | "system";
  /** `heard` and `unheard` together. The newest entry of an itemId replaces the one before. */
  text: string;
  heard: string;
  /** What the caller did not hear of an answer because they spoke over it. */
  unheard: string;
  final: boolean;
  /** The speech could not be recognised. */
  failed: boolean;
}

/** One turn's times in milliseconds; the five steps add up to `voice_to_voice_ms`. null: did not happen. */
export interface TurnMetrics {
  /** Unix seconds. */
  speech_ended_at: number | null;
  endpoint_ms: number | null;
  transcript_ms: number | null;
  chat_first_token_ms: number | null;
  speech_first_audio_ms: number | null;
  first_packet_ms: number | null;
  voice_to_voice_ms: number | null;
  barge_in_ms: number | null;
  heard_ms: number | null;
  /** US dollars since the turn before; null: a price is not known. */
  cost_usd: number | null;
  engines: Record<string, string>;
}

/** An event of OpenAI's Realtime API, or of ours (`realtime.*`). */
export interface ServerEvent {
  type: string;
  event_id: string;
  [field: string]: unknown;
}

export interface ClientEvent {
  type: string;
  event_id?: string;
  [field: string]: unknown;
}

export type CloseReason =
  | "hangup"
  | "ended_by_server"
  | "ended_by_api"
  | "max_duration"
  | "server_shutdown"
  | "connection_lost"
  | (string & {});

/** What `detail` is for each type of event. Beside these, every server event is told under its own type. */
export interface CallEvents {
  state: { state: CallState };
  activity: { activity: Activity };
  /** Words of either side, as they come. */
  transcript: TranscriptEntry;
  /** After each turn. */
  turn: { responseId: string | null; metrics: TurnMetrics };
  /** 20 times a second, 0 to 1. */
  levels: { input: number; output: number };
  microphone: { label: string; muted: boolean; lost: boolean };
  /** The browser wants a tap before it plays: call `unlock()` inside one. */
  blocked: Record<string, never>;
  /** No media got through; the next transport is tried. */
  fallback: { error: InfraiError };
  /** The server's `error` events; the call goes on. */
  problem: { type: string; code: string | null; message: string; param: string | null; event_id: string | null };
  /** `error` is there when the call did not end in order. */
  closed: { reason: CloseReason; message: string; error?: InfraiError };
  /** Every server event, and every client event that was sent. */
  event: ServerEvent;
  sent: ClientEvent;
}

export class LiveCall extends EventTarget {
  /** Resolves when both can hear each other; rejects with what `closed` tells as `error`. May be left alone. */
  readonly ready: Promise<void>;
  readonly state: CallState;
  readonly activity: Activity;
  readonly muted: boolean;
  /** Known once there is a token. */
  readonly session: Partial<Omit<LiveSessionToken, "token">> | undefined;
  /** The transport in use, "webrtc" or "websocket"; undefined before the call is live. */
  readonly transport: string | undefined;

  /** `addEventListener` with `detail` in hand; gives the function that takes the listener away. */
  on<Type extends keyof CallEvents>(type: Type, listener: (detail: CallEvents[Type], event: CustomEvent) => void): () => void;
  on(type: string, listener: (detail: ServerEvent, event: CustomEvent) => void): () => void;

  /** One OpenAI Realtime client event; waits for the call to come up. Throws InfraiError after the end. */
  send(event: ClientEvent): void;
  /** Typed text as the caller's turn; cuts what is being said. */
  say(text: string): void;
  /** Stop the answer. */
  interrupt(): void;
  mute(): void;
  unmute(): void;
  /** deviceIds of `navigator.mediaDevices.enumerateDevices()`; "" is the system's choice. */
  setDevice(device: { input?: string; output?: string }): Promise<void>;
  unlock(): Promise<void>;
  levels(): { input: number; output: number };
  /** The loudness of each frequency band, 0 to 255, lowest first, into `bytes` (up to 512). */
  spectrum(side: "input" | "output", bytes: Uint8Array): void;
  /** The browser's own figures (an RTCStatsReport); empty over a WebSocket. */
  stats(): Promise<ReadonlyMap<string, unknown>> | undefined;
  hangUp(): void;
}

/** Carries a call. Rejects with InfraiError; the code `no_media_path` lets the next transport try. */
export type Transport = (options: TransportOptions) => Promise<OpenTransport>;

export interface TransportOptions {
  baseUrl: string;
  token: string;
  iceServers: RTCIceServer[];
  /** The microphone; undefined for a call without one. */
  track: MediaStreamTrack | undefined;
  /** Runs since the tap that began the call. */
  audioContext: AudioContext;
  /** The caller has given up. */
  signal: AbortSignal;
  /** One server event as JSON text. */
  onEvent(text: string): void;
  onAudio(stream: MediaStream): void;
  /** Once, when an open transport ends by itself. */
  onClosed(reason: CloseReason): void;
}

export interface OpenTransport {
  readonly name: string;
  send(text: string): void;
  replaceTrack(track: MediaStreamTrack): Promise<void>;
  stats(): Promise<ReadonlyMap<string, unknown>>;
  close(): void;
}

export const connectWebRtc: Transport;
export const connectWebSocket: Transport;

/**
 * Every failure. `code` is the server's (`full`, `invalid_api_key`, `origin_not_allowed`, ...) or one of
 * `microphone_refused`, `microphone_missing`, `microphone_busy`, `insecure_address`, `no_media_path`, `unreachable`,
 * `connection_lost`, `call_ended`, `aborted`. `message` says what to do.
 */
export class InfraiError extends Error {
  readonly code: string;
  /** HTTP status, where there was an answer. */
  readonly status: number | undefined;
  readonly param: string | undefined;
  /** Seconds. */
  readonly retryAfter: number | undefined;
  readonly requestId: string | undefined;
  readonly retryable: boolean;
}
