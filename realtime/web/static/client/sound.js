/**
 * Both directions of sound in a browser: the microphone (opened, muted, replaced when its device goes) and the
 * loudspeaker (an <audio> element, since browsers cancel the echo of what plays there), each with a meter.
 */

import { InfraiError, microphoneError } from "./errors.js";

const METER_SAMPLES = 1024;
const METER_FLOOR_DB = -60;

/** Loudness and waveform of a stream. */
class Meter {
  #analyser;
  #source;
  #samples = new Float32Array(METER_SAMPLES);

  constructor(context) {
    this.#analyser = context.createAnalyser();
    this.#analyser.fftSize = METER_SAMPLES;
    this.#analyser.smoothingTimeConstant = 0.6;
  }

  listen(stream) {
    this.#source?.disconnect();
    this.#source = undefined;
    if (!stream || stream.getAudioTracks().length === 0) return;
    this.#source = this.#analyser.context.createMediaStreamSource(stream);
    this.#source.connect(this.#analyser);
  }

  /** 0 to 1, linear in decibels from -60 dBFS up; what an ear would call loudness. */
  level() {
    if (!this.#source) return 0;
    this.#analyser.getFloatTimeDomainData(this.#samples);
    let sum = 0;
    for (const sample of this.#samples) sum += sample * sample;
    const decibels = 10 * Math.log10(sum / METER_SAMPLES + 1e-12);
    return Math.min(1, Math.max(0, 1 - decibels / METER_FLOOR_DB));
  }

  /** The loudness of each frequency band, lowest first, 0 to 255, into `bytes`. */
  spectrum(bytes) {
    if (this.#source) this.#analyser.getByteFrequencyData(bytes);
    else bytes.fill(0);
  }
}

/** Plays the answer. Made inside a tap: that is when browsers let a page start to sound. */
export class Speaker {
  constructor(element = new Audio()) {
    this.element = element;
    element.autoplay = true;
    element.playsInline = true;
    this.context = new AudioContext({ latencyHint: "interactive" });
    this.input = new Meter(this.context);
    this.output = new Meter(this.context);
    // Playing silence now is what the tap allows; the answer's stream takes its place later.
    element.srcObject = this.context.createMediaStreamDestination().stream;
    this.unlock().catch(() => {});
  }

  /** Start to sound; rejects where the browser wants a tap first. */
  async unlock() {
    this.context.resume().catch(() => {});
    await this.element.play();
  }

  async play(stream) {
    this.element.srcObject = stream;
    this.output.listen(stream);
    await this.unlock();
  }

  /** Another loudspeaker, where the browser lets pages choose. */
  async choose(deviceId) {
    if (typeof this.element.setSinkId !== "function") {
      throw new InfraiError("output_fixed", "This browser does not let pages choose the loudspeaker.");
    }
    await this.element.setSinkId(deviceId);
  }

  close() {
    this.element.srcObject = null;
    this.context.close().catch(() => {});
  }
}

/**
 * The caller's microphone. `onChange({ label, lost })` tells when its track was replaced or is gone; `replace` is
 * what the transport does with a new track.
 */
export class Microphone {
  #wish;
  #onChange;
  #muted = false;
  #closed = false;
  #reopening;
  #onDeviceChange = () => this.#check();

  static async open(wish, onChange) {
    const microphone = new Microphone(wish, onChange);
    await microphone.#take(wish);
    navigator.mediaDevices.addEventListener("devicechange", microphone.#onDeviceChange);
    return microphone;
  }

  constructor(wish, onChange) {
    this.#wish = wish;
    this.#onChange = onChange;
    this.replace = async () => {};
  }

  get label() {
    return this.track?.label ?? "";
  }

  get muted() {
    return this.#muted;
  }

  set muted(muted) {
    this.#muted = muted;
    if (this.track) this.track.enabled = !muted;
  }

  /** Use another device from now on. */
  async choose(deviceId) {
    this.#wish = { ...constraintsOf(this.#wish), deviceId: deviceId ? { exact: deviceId } : undefined };
    await this.#take(this.#wish);
    this.#onChange({ label: this.label, lost: false });
  }

  async #take(wish) {
    const track = await openTrack(wish);
    if (this.#closed) {
      track.stop();
      return;
    }
    const before = this.track;
    this.track = track;
    this.stream = new MediaStream([track]);
    track.enabled = !this.#muted;
    track.addEventListener("ended", () => this.#check());
    await this.replace(track);
    before?.stop();
  }

  /** After a device came or went: when ours is gone, take the one that the system offers now. */
  #check() {
    if (this.#closed || this.#reopening || this.track?.readyState === "live") return;
    const wish = { ...constraintsOf(this.#wish), deviceId: undefined };
    this.#reopening = this.#take(wish)
      .then(() => this.#onChange({ label: this.label, lost: false }))
      .catch(() => this.#onChange({ label: "", lost: true })) // the next devicechange tries again
      .finally(() => (this.#reopening = undefined));
  }

  close() {
    this.#closed = true;
    this.track?.stop();
    navigator.mediaDevices?.removeEventListener("devicechange", this.#onDeviceChange);
  }
}

function constraintsOf(wish) {
  return typeof wish === "object" && !(wish instanceof MediaStreamTrack) ? wish : {};
}

/** A track for `true`, constraints or a track; with the browser's echo canceller unless the constraints say otherwise. */
async function openTrack(wish) {
  if (wish instanceof MediaStreamTrack) return wish;
  if (!navigator.mediaDevices?.getUserMedia) {
    const message = `Browsers give the microphone to secure pages only, and ${location.origin} is not one. Open this page over https, or on the server's own machine as http://localhost.`;
    throw new InfraiError("insecure_address", message);
  }
  const audio = { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1, ...constraintsOf(wish) };
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio, video: false });
    return stream.getAudioTracks()[0];
  } catch (error) {
    throw microphoneError(error);
  }
}
