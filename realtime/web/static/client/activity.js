/** Whose turn it is, from server events. Pure. The caller comes first: who is spoken over has lost the turn. */
export class Activity {
  #caller = false;
  #answer = false;
  #waiting = false;

  /** `listening`, `hearing`, `thinking` or `speaking`. */
  get current() {
    if (this.#caller) return "hearing";
    if (this.#answer) return "speaking";
    return this.#waiting ? "thinking" : "listening";
  }

  take({ type }) {
    switch (type) {
      case "input_audio_buffer.speech_started":
        this.#caller = true;
        break;
      case "input_audio_buffer.speech_stopped":
        this.#caller = false;
        this.#waiting = true;
        break;
      case "response.created":
        this.#waiting = true;
        break;
      case "conversation.item.input_audio_transcription.completed":
      case "conversation.item.input_audio_transcription.failed": // an answer, if there is to be one, is announced next
      case "response.done":
        this.#waiting = false;
        break;
      case "output_audio_buffer.started":
        this.#answer = true;
        break;
      case "output_audio_buffer.stopped":
      case "output_audio_buffer.cleared":
        this.#answer = false;
        break;
    }
  }
}
