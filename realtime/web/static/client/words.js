/**
 * What both sides said, put together from server events. Pure: events in, changed entries out.
 *
 * An entry is `{ itemId, role, text, heard, unheard, final, failed }`. `heard` and `unheard` split `text` where the
 * caller cut the answer; until then everything counts as heard.
 */
export class Words {
  #entries = new Map();
  #partial = new Set();

  /** The entries that `event` changed. */
  take(event) {
    const handle = HANDLERS[event.type];
    const changed = handle?.(this, event);
    return changed ? [{ ...changed }] : [];
  }

  entry(itemId, role) {
    let entry = this.#entries.get(itemId);
    if (!entry) {
      entry = { itemId, role, text: "", heard: "", unheard: "", final: false, failed: false };
      this.#entries.set(itemId, entry);
    }
    return entry;
  }

  has(itemId) {
    return this.#entries.has(itemId);
  }

  set(entry, text, final = entry.final) {
    Object.assign(entry, { text, heard: text, unheard: "", final });
    return entry;
  }

  partial(event) {
    this.#partial.add(event.item_id);
    return this.set(this.entry(event.item_id, "user"), event.text);
  }

  /** Deltas may only append; where partial transcripts come as well, those are newer and deltas add nothing. */
  append(event, role) {
    if (this.#partial.has(event.item_id)) return undefined;
    const entry = this.entry(event.item_id, role);
    return this.set(entry, entry.text + event.delta);
  }

  item(item) {
    if (item?.type !== "message" || item.role === "assistant") return undefined;
    const text = item.content.map((part) => part.text ?? part.transcript ?? "").join(" ");
    return text ? this.set(this.entry(item.id, item.role), text, true) : undefined;
  }

  /** An answer ended. When it was cut, its item holds what had been heard, and that may still grow less, never more. */
  answered(item) {
    if (item?.type !== "message" || item.role !== "assistant") return undefined;
    const entry = this.entry(item.id, "assistant");
    entry.final = true;
    const said = transcriptOf(item);
    return item.status === "incomplete" ? this.cut(entry, said) : this.set(entry, said.length > entry.text.length ? said : entry.text);
  }

  cut(entry, heard) {
    const length = entry.text.startsWith(heard) ? heard.length : commonStart(entry.text, heard);
    return Object.assign(entry, { heard: entry.text.slice(0, length), unheard: entry.text.slice(length), final: true });
  }
}

function transcriptOf(item) {
  return (item.content ?? []).map((part) => part.transcript ?? part.text ?? "").join(" ");
}

function commonStart(one, other) {
  let length = 0;
  while (length < other.length && one[length] === other[length]) length += 1;
  return length;
}

const HANDLERS = {
  "realtime.input_transcript.partial": (words, event) => words.partial(event),
  "conversation.item.input_audio_transcription.delta": (words, event) => words.append(event, "user"),
  "conversation.item.input_audio_transcription.completed": (words, event) => words.set(words.entry(event.item_id, "user"), event.transcript, true),
  "conversation.item.input_audio_transcription.failed": (words, event) => Object.assign(words.entry(event.item_id, "user"), { final: true, failed: true }),
  "conversation.item.added": (words, event) => words.item(event.item),
  "conversation.item.retrieved": (words, event) =>
    event.item.role === "assistant" && words.has(event.item.id) ? words.cut(words.entry(event.item.id), transcriptOf(event.item)) : undefined,
  "response.output_audio_transcript.delta": (words, event) => words.append(event, "assistant"),
  "response.output_text.delta": (words, event) => words.append(event, "assistant"),
  "response.output_item.done": (words, event) => words.answered(event.item),
};
