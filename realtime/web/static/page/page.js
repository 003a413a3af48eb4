/** The page: one button, and everything that can be seen of a call. All the calling is done by the client. */

import { InfraiClient } from "../client.js";
import { Devices } from "./devices.js";
import { Log } from "./log.js";
import { problemOf, showProblem } from "./problems.js";
import { Ring } from "./ring.js";
import { Transcript } from "./transcript.js";
import { Turns } from "./turns.js";

const $ = (id) => document.getElementById(id);

const STATUS = {
  idle: "Press and speak",
  starting: "Waiting for the microphone…",
  connecting: "Connecting…",
  closed: "Press to call again",
  listening: "Listening: say something",
  hearing: "Hearing you",
  thinking: "Thinking…",
  speaking: "Speaking: talk over it to stop it",
};
const BUTTON = { idle: "Talk", starting: "Cancel", connecting: "Cancel", live: "Hang up", closed: "Talk" };
/** Reasons to end that need no explanation. */
const QUIET = new Set(["hangup", "aborted"]);

const transcript = new Transcript($("words"), $("words-empty"), $("said"));
const turns = new Turns($("turns"), $("turns-empty"), $("legend"));
const log = new Log({ list: $("log-list"), count: $("log-count"), copy: $("log-copy"), clear: $("log-clear") });
const ring = new Ring($("ring"), { input: $("meter-you"), output: $("meter-bot") });
const devices = new Devices($("input"), $("output"), $("output-field"));

let client = new InfraiClient();
/** How the page gets a token: from its own server, or with a key that was typed in. */
let tokenFor = pageToken;
let call;
let startedAt;

async function pageToken({ agent, voice, signal }) {
  const { InfraiError, postJson } = await tools;
  const wish = { agent, voice: voice || undefined };
  return postJson(new URL("page/token", document.baseURI).href, wish, { signal }).catch((error) => {
    throw error instanceof InfraiError && error.code === "page_only" ? new InfraiError("link_needed", error.message) : error;
  });
}
const tools = Promise.all([import("../client/http.js"), import("../client/errors.js")]).then(([http, errors]) => ({ ...http, ...errors }));

// -- the call -----------------------------------------------------------------------------------------

function begin({ microphone = true } = {}) {
  hideProblem();
  log.restart();
  const wish = { agent: $("agent").value || undefined, voice: $("voice").value || undefined };
  const deviceId = $("input").value;
  call = client.ai.live({
    ...wish,
    token: tokenFor,
    microphone: microphone && deviceId ? { deviceId: { exact: deviceId } } : microphone,
  });
  const current = call;
  const mine = (listener) => (detail) => call === current && listener(detail);
  call.on("state", mine(onState));
  call.on("activity", mine(onActivity));
  call.on("transcript", mine((entry) => transcript.show(entry)));
  call.on("turn", mine(({ metrics }) => turns.show(metrics)));
  call.on("event", mine((event) => log.add("server", event)));
  call.on("sent", mine((event) => log.add("client", event)));
  call.on("problem", mine((error) => transcript.note(error.message, "trouble")));
  call.on("microphone", mine(onMicrophone));
  call.on("blocked", mine(() => ($("unlock").hidden = false)));
  call.on("fallback", mine(() => transcript.note("No UDP gets through here: trying over a WebSocket, which is slower.")));
  call.on("closed", mine(onClosed));
  onState({ state: call.state });
  return call;
}

function onState({ state }) {
  document.body.dataset.state = state;
  $("talk-label").textContent = BUTTON[state];
  $("mute").disabled = state !== "live";
  if (state === "live") {
    startedAt = Date.now();
    ring.follow(call);
    devices.refresh();
    const { agent, model, voice } = call.session;
    $("facts").textContent = [agent, model, voice, call.transport === "webrtc" ? "" : call.transport].filter(Boolean).join(" · ");
    if ($("output").value) call.setDevice({ output: $("output").value }).catch(() => {});
  }
  if (state === "closed") ring.follow(undefined);
  onActivity({ activity: call?.activity ?? "listening" });
}

function onActivity({ activity }) {
  document.body.dataset.activity = activity;
  const { state } = document.body.dataset;
  const muted = state === "live" && call?.muted && activity === "listening";
  $("status").textContent = muted ? "You are muted" : STATUS[state === "live" ? activity : state];
}

function onMicrophone({ label, lost, muted }) {
  const button = $("mute");
  button.setAttribute("aria-pressed", String(muted));
  button.textContent = muted ? "Unmute" : "Mute";
  if (lost) transcript.note("The microphone is gone. Plug one in, or type.", "trouble");
  else if (label && document.body.dataset.state === "live") onActivity({ activity: call.activity });
}

function onClosed({ reason, message, error }) {
  $("unlock").hidden = true;
  if (startedAt) transcript.note(message);
  startedAt = undefined;
  if (!QUIET.has(reason)) showFailure(error ?? { code: reason, message });
}

function hangUp() {
  call?.hangUp();
}

// -- problems -----------------------------------------------------------------------------------------

function showFailure(failure) {
  $("status").textContent = "";
  showProblem($("problem"), problemOf(failure), act);
}

function hideProblem() {
  $("problem").hidden = true;
}

function act(name) {
  if (name === "key") {
    askForKey();
    return;
  }
  begin({ microphone: name !== "type" });
  if (name === "type") $("text").focus();
}

function askForKey() {
  const form = document.createElement("form");
  form.className = "key";
  const label = document.createElement("label");
  label.textContent = "API key (kept in this page only)";
  const field = Object.assign(document.createElement("input"), { type: "password", required: true, autocomplete: "off", id: "api-key" });
  const button = Object.assign(document.createElement("button"), { type: "submit", textContent: "Use it" });
  label.append(field);
  form.append(label, button);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    client = new InfraiClient({ apiKey: field.value.trim() });
    tokenFor = undefined;
    hideProblem();
    onIdle();
    $("talk").focus();
  });
  $("problem").replaceChildren(form);
  field.focus();
}

// -- controls -----------------------------------------------------------------------------------------

const running = () => ["starting", "connecting", "live"].includes(document.body.dataset.state);

$("talk").addEventListener("click", () => (running() ? hangUp() : begin()));
$("unlock").addEventListener("click", async () => {
  await call?.unlock();
  $("unlock").hidden = true;
});
$("mute").addEventListener("click", toggleMute);

function toggleMute() {
  if (call?.muted) call.unmute();
  else call?.mute();
  onActivity({ activity: call?.activity ?? "listening" });
}

$("typed").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text) return;
  $("text").value = "";
  // Typing needs no microphone: a call that is not there yet begins without asking for one.
  const current = running() ? call : begin({ microphone: false });
  current.say(text);
});

$("input").addEventListener("change", () => choose({ input: $("input").value }));
$("output").addEventListener("change", () => choose({ output: $("output").value }));

function choose(device) {
  if (running()) call.setDevice(device).catch((error) => transcript.note(error.message, "trouble"));
}

document.addEventListener("keydown", (event) => {
  const typing = event.target.closest("input, textarea, select, summary, button, a");
  if (event.key === "Escape" && running()) hangUp();
  else if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key === " ") $("talk").click();
  else if (event.key.toLowerCase() === "m" && !$("mute").disabled) toggleMute();
  else return;
  event.preventDefault();
});

setInterval(() => {
  const seconds = startedAt ? Math.floor((Date.now() - startedAt) / 1000) : undefined;
  $("timer").textContent = seconds === undefined ? "" : `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}, 500);

// -- opening ------------------------------------------------------------------------------------------

function onIdle() {
  document.body.dataset.state = "idle";
  $("talk-label").textContent = BUTTON.idle;
  $("status").textContent = STATUS.idle;
}

/** A link's secret goes to the server and out of the address, so that it is neither bookmarked nor shared. */
async function redeemLink() {
  const secret = new URLSearchParams(location.hash.slice(1)).get("link");
  if (!secret) return;
  history.replaceState(null, "", location.pathname + location.search);
  const { request } = await tools;
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ secret }) };
  await request(new URL("page/link", document.baseURI).href, options);
}

async function open() {
  onIdle();
  const { request } = await tools;
  let linkFailure;
  await redeemLink().catch((error) => (linkFailure = error));
  try {
    const response = await request(new URL("page/session", document.baseURI).href);
    const session = await response.json();
    if (!session.access) {
      showFailure(linkFailure ?? { code: "link_needed" });
      return;
    }
    fill($("agent"), session.agents, "agent");
    fill($("voice"), ["", ...session.voices], "voice");
    if (!window.isSecureContext) showFailure({ code: "insecure_address" });
  } catch (error) {
    showFailure(error);
  }
  devices.refresh();
}

/** A list of names, with the choice of the last visit. */
function fill(select, names, kept) {
  select.replaceChildren(...names.map((name) => new Option(name || "The agent's own", name)));
  const last = remembered(kept);
  if (names.includes(last)) select.value = last;
  select.addEventListener("change", () => remember(kept, select.value));
}

function remembered(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null; // storage is switched off: nothing is remembered
  }
}

function remember(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    return;
  }
}

window.addEventListener("hashchange", open);
open();
