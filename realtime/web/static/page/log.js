/** The events of both directions, newest first, each to be opened. Bounded; repeats of one type are counted. */

const MAX_EVENTS = 400;

export class Log {
  #list;
  #count;
  #events = [];
  #started = performance.now();
  #last;

  constructor({ list, count, copy, clear }) {
    this.#list = list;
    this.#count = count;
    clear.addEventListener("click", () => this.clear());
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(this.#events.map(({ from, event }) => JSON.stringify({ from, ...event })).join("\n"));
      copy.textContent = "Copied";
      setTimeout(() => (copy.textContent = "Copy as JSON lines"), 1500);
    });
  }

  restart() {
    this.#started = performance.now();
    this.#last = undefined;
  }

  clear() {
    this.#events = [];
    this.#last = undefined;
    this.#list.replaceChildren();
    this.#count.textContent = "0";
  }

  /** `from`: "server" or "client". */
  add(from, event) {
    this.#events.push({ from, event });
    if (this.#events.length > MAX_EVENTS) this.#events.shift();
    this.#count.textContent = this.#events.length;
    const kind = `${from} ${event.type}`;
    if (this.#last?.kind === kind) {
      this.#last.events.push(event);
      this.#last.times.textContent = `×${this.#last.events.length}`;
      return;
    }
    this.#last = this.#row(kind, from, event);
    this.#list.prepend(this.#last.row);
    while (this.#list.childElementCount > MAX_EVENTS) this.#list.lastElementChild.remove();
  }

  #row(kind, from, event) {
    const row = document.createElement("li");
    row.className = event.type === "error" ? `${from} error` : from;
    const details = document.createElement("details");
    const summary = document.createElement("summary");
    const time = document.createElement("time");
    time.textContent = ((performance.now() - this.#started) / 1000).toFixed(2);
    const arrow = document.createElement("span");
    arrow.textContent = from === "server" ? "↓" : "↑";
    arrow.title = from === "server" ? "from the server" : "to the server";
    const times = document.createElement("em");
    summary.append(time, arrow, event.type, times);
    const body = document.createElement("pre");
    const events = [event];
    details.addEventListener("toggle", () => {
      if (details.open) body.textContent = events.slice(-20).map((one) => JSON.stringify(one, null, 2)).join("\n");
    });
    details.append(summary, body);
    row.append(details);
    return { kind, row, events, times };
  }
}
