/** What each failure means for the person in front of the page, and what to do about it. */

const RETRY = { label: "Try again", act: "retry" };
const AGAIN = { label: "Call again", act: "retry" };
const TYPE = { label: "Type instead", act: "type" };
const KEY = { label: "Use an API key", act: "key" };

const PROBLEMS = {
  microphone_refused: {
    title: "The microphone is not allowed",
    steps: ["Open the site settings beside the address (the lock or sliders sign) and allow the microphone.", "On a phone also look in the system's settings: the browser itself needs the permission.", "Then try again."],
    actions: [RETRY, TYPE],
  },
  microphone_missing: {
    title: "No microphone found",
    steps: ["Plug one in or switch your headset on, and try again.", "Or type: you will hear the answer all the same."],
    actions: [RETRY, TYPE],
  },
  microphone_busy: {
    title: "The microphone does not start",
    steps: ["Close other programs and tabs that use it.", "If it is a headset, unplug it and plug it in again."],
    actions: [RETRY, TYPE],
  },
  insecure_address: {
    title: "No microphone at this address",
    steps: ["Browsers give the microphone to secure pages only: https, or localhost on the server's own machine.", "On this machine: open the address with localhost in it.", "From another device: start the server with `realtime serve --host 0.0.0.0 --tls self-signed` and open the https link it prints."],
    actions: [TYPE],
  },
  no_media_path: {
    title: "Sound cannot get through",
    steps: ["The server answered, but neither UDP nor a WebSocket got through: a firewall, VPN or proxy is in the way. Try another network, or switch the VPN off.", "If you run the server: open its UDP ports, set REALTIME_PUBLIC_ADDRESS, or add a TURN server (`realtime doctor` checks all three), and let your proxy pass WebSockets on."],
    actions: [RETRY],
  },
  connection_lost: {
    title: "The connection was lost",
    steps: ["Check the network of this device, then call again."],
    actions: [{ label: "Reconnect", act: "retry" }],
  },
  ended_by_server: {
    title: "The server ended the call",
    steps: ["It may have been restarted."],
    actions: [AGAIN],
  },
  server_shutdown: {
    title: "The server is being stopped or restarted",
    steps: ["Call again in a moment."],
    actions: [AGAIN],
  },
  max_duration: { title: "The call has reached its longest duration", steps: [], actions: [AGAIN] },
  ended_by_api: { title: "The call was ended by whoever runs the server", steps: [], actions: [AGAIN] },
  unreachable: {
    title: "The server does not answer",
    steps: ["Is it running? `realtime serve` starts it.", "Is this device online?"],
    actions: [RETRY],
  },
  full: {
    title: "All lines are busy",
    steps: ["The server takes no further call at the moment. Try again in a little while."],
    actions: [RETRY],
  },
  too_many: {
    title: "Too many calls in a short time",
    steps: ["Wait a moment before you try again."],
    actions: [RETRY],
  },
  link_needed: {
    title: "This page needs a link",
    steps: ["The server prints a one-time link when it starts. Open that one; `realtime link` prints a new one.", "On the server's own machine the page works without: open it as http://localhost with the server's port."],
    actions: [KEY],
  },
  link_not_valid: {
    title: "This link does not work any more",
    steps: ["Each link opens the page once, within 15 minutes. Ask for a new one: `realtime link` on the server prints it."],
    actions: [KEY],
  },
  key: {
    title: "The key was not accepted",
    steps: ["`realtime keys list` on the server shows the keys that exist, `realtime keys create --scopes mint` makes one."],
    actions: [KEY],
  },
  token: {
    title: "The permission for this call has run out",
    steps: ["Each call gets a token of its own for a few minutes. Try again: a new one is asked for."],
    actions: [RETRY],
  },
  other: { title: "The call did not come up", steps: [], actions: [RETRY] },
};

const ALIASES = {
  offer_in_progress: "full",
  no_network: "full",
  store_unavailable: "full",
  service_unavailable: "full",
  overconstrained: "microphone_missing",
  microphone_failed: "microphone_busy",
  missing_credentials: "link_needed",
  invalid_api_key: "key",
  malformed_credentials: "key",
  missing_scope: "key",
  origin_not_allowed: "key",
  agent_not_allowed: "key",
  token_expired: "token",
  token_used: "token",
  token_revoked: "token",
  invalid_token: "token",
};

/** `{ code, title, message, steps, actions }` for an InfraiError or a reason why a call ended. */
export function problemOf({ code, status, message, retryAfter }) {
  let name = ALIASES[code] ?? code;
  if (!PROBLEMS[name]) name = status === 429 ? "too_many" : status === 503 ? "full" : status === 401 ? "key" : "other";
  const known = PROBLEMS[name];
  const steps = [...known.steps];
  if (retryAfter) steps.push(`The server says: in ${retryAfter} ${retryAfter === 1 ? "second" : "seconds"}.`);
  return { code, title: known.title, message: name === "other" || name === "key" ? message : "", steps, actions: known.actions };
}

/** Show it in `panel`; `act(name)` is called when one of its buttons is pressed. */
export function showProblem(panel, problem, act) {
  panel.dataset.code = problem.code;
  const title = element("h2", problem.title);
  const parts = [title];
  if (problem.message) parts.push(element("p", problem.message));
  if (problem.steps.length > 0) {
    const list = document.createElement("ul");
    list.append(...problem.steps.map(step));
    parts.push(list);
  }
  const buttons = document.createElement("p");
  for (const { label, act: name } of problem.actions) {
    const button = element("button", label);
    button.type = "button";
    button.dataset.act = name;
    button.addEventListener("click", () => act(name));
    buttons.append(button);
  }
  panel.replaceChildren(...parts, buttons);
  panel.hidden = false;
}

/** One step; what stands in backticks is a command. */
function step(text) {
  const item = document.createElement("li");
  item.append(...text.split("`").map((part, index) => (index % 2 ? element("code", part) : part)));
  return item;
}

function element(name, text) {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}
