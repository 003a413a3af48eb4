/** A bar a turn: where the time went between the end of the caller's words and the first sound of the answer. */

export const STEPS = [
  ["endpoint_ms", "end of speech noticed"],
  ["transcript_ms", "words recognised"],
  ["chat_first_token_ms", "first word thought"],
  ["speech_first_audio_ms", "first sound made"],
  ["first_packet_ms", "first packet sent"],
];
/** Bars kept, the newest on top. */
const MAX_TURNS = 30;

export class Turns {
  #list;
  #empty;
  #count = 0;

  constructor(list, empty, legend) {
    this.#list = list;
    this.#empty = empty;
    legend.append(...STEPS.map(([name, label]) => legendItem(name, label)));
  }

  show(metrics) {
    const total = metrics.voice_to_voice_ms;
    if (total === null && metrics.barge_in_ms === null) return;
    this.#count += 1;
    this.#empty.hidden = true;
    const row = document.createElement("li");
    row.dataset.total = total ?? 0;
    row.append(this.#heading(metrics), bar(metrics));
    this.#list.prepend(row);
    while (this.#list.childElementCount > MAX_TURNS) this.#list.lastElementChild.remove();
    this.#scale();
  }

  #heading({ voice_to_voice_ms: total, barge_in_ms: cut, heard_ms: heard }) {
    const line = document.createElement("p");
    const name = document.createElement("b");
    name.textContent = total === null ? `Turn ${this.#count}` : `Turn ${this.#count}: ${Math.round(total)} ms`;
    line.append(name);
    if (cut !== null) line.append(` cut off in ${Math.round(cut)} ms`, heard ? `, after ${(heard / 1000).toFixed(1)} s heard` : "");
    return line;
  }

  /** All bars on one scale, so that they can be compared. */
  #scale() {
    const rows = [...this.#list.children];
    const longest = Math.max(1, ...rows.map((row) => Number(row.dataset.total)));
    for (const row of rows) row.querySelector(".bar").style.width = `${(100 * Number(row.dataset.total)) / longest}%`;
  }
}

function bar(metrics) {
  const made = document.createElement("div");
  made.className = "bar";
  made.setAttribute("role", "img");
  const known = STEPS.filter(([name]) => metrics[name] > 0);
  made.setAttribute("aria-label", known.map(([name, label]) => `${label} ${Math.round(metrics[name])} ms`).join(", ") || "no times");
  for (const [name, label] of known) {
    const piece = document.createElement("i");
    piece.className = name;
    piece.style.flexGrow = metrics[name];
    piece.title = `${label}: ${Math.round(metrics[name])} ms`;
    if (metrics[name] >= 60) piece.textContent = Math.round(metrics[name]);
    made.append(piece);
  }
  return made;
}

function legendItem(name, label) {
  const item = document.createElement("li");
  const colour = document.createElement("i");
  colour.className = name;
  item.append(colour, label);
  return item;
}
