/**
 * Both ends of the WebSocket's sound, on the audio thread: `infrai-capture` turns the microphone into 24 kHz int16, and
 * `infrai-playback` plays 24 kHz int16 and knows how much of it was played. Nothing here ever waits or allocates much.
 */

const WIRE_HZ = 24000;
/** Samples in one message to the page: 40 ms. */
const PIECE = 960;
/** Samples over which a cut fades out: 5 ms, so that it does not click. */
const FADE = 120;

class Capture extends AudioWorkletProcessor {
  #piece = new Int16Array(PIECE);
  #filled = 0;
  #sum = 0;
  #count = 0;
  #phase = 0;

  /** Each output sample is the mean of the input samples it stands for: enough of a filter for speech. */
  process([[samples]]) {
    if (!samples) return true;
    const step = WIRE_HZ / sampleRate;
    for (const sample of samples) {
      this.#sum += sample;
      this.#count += 1;
      this.#phase += step;
      if (this.#phase < 1) continue;
      this.#phase -= 1;
      const mean = this.#sum / this.#count;
      this.#sum = this.#count = 0;
      this.#piece[this.#filled++] = Math.max(-1, Math.min(1, mean)) * 32767;
      if (this.#filled === PIECE) {
        this.port.postMessage(this.#piece.slice());
        this.#filled = 0;
      }
    }
    return true;
  }
}

class Playback extends AudioWorkletProcessor {
  #queue = [];
  #at = 0;
  #fraction = 0;
  #played = 0;
  #told = 0;
  #last = 0;
  #fading = 0;

  constructor() {
    super();
    this.port.onmessage = ({ data }) => {
      if (data instanceof Int16Array) this.#queue.push(data);
      else this.#skip(data.to);
    };
  }

  /** Silence; whatever was pushed so far counts as gone. */
  #skip(to) {
    this.#fading = this.#queue.length > 0 ? FADE : 0;
    this.#queue = [];
    this.#at = this.#fraction = 0;
    this.#played = this.#told = to;
  }

  process(_, [[output]]) {
    const step = WIRE_HZ / sampleRate;
    for (let index = 0; index < output.length; index += 1) {
      const piece = this.#queue[0];
      if (!piece) {
        output[index] = this.#fading > 0 ? this.#last * (this.#fading-- / FADE) : 0;
        continue;
      }
      const next = piece[this.#at + 1] ?? this.#queue[1]?.[0] ?? piece[this.#at];
      this.#last = output[index] = (piece[this.#at] * (1 - this.#fraction) + next * this.#fraction) / 32768;
      this.#fraction += step;
      if (this.#fraction < 1) continue;
      this.#fraction -= 1;
      this.#played += 1;
      this.#at += 1;
      if (this.#at === piece.length) {
        this.#queue.shift();
        this.#at = 0;
      }
    }
    this.#tell();
    return true;
  }

  /** How much has been played, every 20 ms, and at once when there is nothing left. */
  #tell() {
    const news = this.#played - this.#told;
    if (news === 0 || (news < WIRE_HZ / 50 && this.#queue.length > 0)) return;
    this.#told = this.#played;
    this.port.postMessage({ played: this.#played });
  }
}

registerProcessor("infrai-capture", Capture);
registerProcessor("infrai-playback", Playback);
