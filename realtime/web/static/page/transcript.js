/** Both sides' words as they come. Finished ones are also told to screen readers, once, in a region of their own. */

const WHO = { user: "You", assistant: "Answer", system: "Note" };

export class Transcript {
  #list;
  #empty;
  #announcer;
  #rows = new Map();
  #told = new Set();
  /** Whether the newest line is kept in sight: until the reader scrolls away from it. */
  #following = true;

  constructor(list, empty, announcer) {
    this.#list = list;
    this.#empty = empty;
    this.#announcer = announcer;
    list.addEventListener("scroll", () => (this.#following = list.scrollHeight - list.scrollTop - list.clientHeight < 80));
    new ResizeObserver(() => this.#follow()).observe(list);
  }

  /** An entry as the client's `transcript` event gives it. */
  show(entry) {
    if (!entry.text && !entry.failed) return;
    const row = this.#rows.get(entry.itemId) ?? this.#add(entry);
    const text = row.querySelector("p");
    const heard = document.createElement("span");
    heard.textContent = entry.failed ? "(not understood)" : entry.heard;
    text.replaceChildren(heard);
    if (entry.unheard) {
      const unheard = document.createElement("s");
      unheard.textContent = entry.unheard;
      unheard.title = "Not heard: you were speaking";
      text.append(unheard);
    }
    row.classList.toggle("growing", !entry.final);
    this.#follow();
    if (entry.final && !this.#told.has(entry.itemId)) {
      this.#told.add(entry.itemId);
      this.#announcer.textContent = `${WHO[entry.role]}: ${entry.heard}`;
    }
  }

  /** A line that nobody said. */
  note(text, kind = "note") {
    const row = document.createElement("li");
    row.className = kind;
    const line = document.createElement("p");
    line.textContent = text;
    row.append(line);
    this.#append(row);
  }

  #add(entry) {
    const row = document.createElement("li");
    row.className = entry.role;
    row.dataset.item = entry.itemId;
    const who = document.createElement("b");
    who.textContent = WHO[entry.role];
    row.append(who, document.createElement("p"));
    this.#rows.set(entry.itemId, row);
    this.#append(row);
    return row;
  }

  #append(row) {
    this.#empty.hidden = true;
    this.#list.append(row);
    this.#follow();
  }

  #follow() {
    if (this.#following) this.#list.scrollTop = this.#list.scrollHeight;
  }
}
