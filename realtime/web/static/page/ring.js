/** Both sides' sound around the button: the caller's spectrum inwards, the answer's outwards. Still where motion is unwelcome. */

const BARS = 72;
const STILL = matchMedia("(prefers-reduced-motion: reduce)");

export class Ring {
  #canvas;
  #context;
  #meters;
  #bytes = { input: new Uint8Array(512), output: new Uint8Array(512) };
  #heights = { input: new Float32Array(BARS), output: new Float32Array(BARS) };
  #call;
  #colours;

  constructor(canvas, meters) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d");
    this.#meters = meters;
    new ResizeObserver(() => this.#fit()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#fit());
    STILL.addEventListener("change", () => this.#draw());
    this.#fit();
  }

  /** Follow `call` until it is over; undefined lets the ring come to rest. */
  follow(call) {
    const idle = !this.#call;
    this.#call = call;
    if (idle && call) requestAnimationFrame(() => this.#frame());
  }

  #fit() {
    const scale = devicePixelRatio || 1;
    const size = this.#canvas.clientWidth;
    this.#canvas.width = this.#canvas.height = Math.round(size * scale);
    this.#context.setTransform(scale, 0, 0, scale, 0, 0);
    const style = getComputedStyle(this.#canvas);
    this.#colours = { input: style.getPropertyValue("--you"), output: style.getPropertyValue("--bot"), rest: style.getPropertyValue("--line") };
    this.#draw();
  }

  #frame() {
    const call = this.#call;
    const levels = call ? call.levels() : { input: 0, output: 0 };
    this.#meters.input.style.transform = `scaleX(${levels.input.toFixed(3)})`;
    this.#meters.output.style.transform = `scaleX(${levels.output.toFixed(3)})`;
    let moving = Boolean(call);
    for (const side of ["input", "output"]) {
      if (call && !(side === "input" && call.muted)) call.spectrum(side, this.#bytes[side]);
      else this.#bytes[side].fill(0);
      moving = this.#settle(side) || moving;
    }
    if (!STILL.matches) this.#draw();
    if (moving) requestAnimationFrame(() => this.#frame());
  }

  /** Move the bars towards the spectrum, fast up and slowly down; whether any still stands. */
  #settle(side) {
    const heights = this.#heights[side];
    let standing = false;
    for (let bar = 0; bar < BARS; bar += 1) {
      // Mirrored, so that the ring has no seam; speech lies in the lowest quarter of the bands.
      const place = bar < BARS / 2 ? bar : BARS - 1 - bar;
      const band = 2 + Math.floor((place / (BARS / 2)) ** 1.5 * 110);
      const wanted = this.#bytes[side][band] / 255;
      heights[bar] += (wanted - heights[bar]) * (wanted > heights[bar] ? 0.5 : 0.12);
      standing ||= heights[bar] > 0.004;
    }
    return standing;
  }

  #draw() {
    const context = this.#context;
    const size = this.#canvas.clientWidth;
    const radius = size * 0.36;
    const reach = size * 0.13;
    context.clearRect(0, 0, size, size);
    context.lineCap = "round";
    context.lineWidth = Math.max(2, size / 130);
    for (let bar = 0; bar < BARS; bar += 1) {
      const angle = (bar / BARS) * 2 * Math.PI - Math.PI / 2;
      const out = STILL.matches ? 0 : this.#heights.output[bar] * reach;
      const inwards = STILL.matches ? 0 : this.#heights.input[bar] * reach * 0.75;
      this.#line(angle, radius, radius + 0.5, this.#colours.rest);
      if (inwards > 0.5) this.#line(angle, radius - inwards, radius, this.#colours.input);
      if (out > 0.5) this.#line(angle, radius, radius + out, this.#colours.output);
    }
  }

  #line(angle, from, to, colour) {
    const context = this.#context;
    const middle = this.#canvas.clientWidth / 2;
    context.strokeStyle = colour;
    context.beginPath();
    context.moveTo(middle + Math.cos(angle) * from, middle + Math.sin(angle) * from);
    context.lineTo(middle + Math.cos(angle) * to, middle + Math.sin(angle) * to);
    context.stroke();
  }
}
