// `@openai/agents-realtime` in Node over a WebSocket. Its schemas are the judges: an event that they do not
// know is demoted to a generic one, which the SDK then ignores.
import assert from 'node:assert/strict';
import { appendFileSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession, tool } from '@openai/agents-realtime';
import { z } from 'zod';

const { BASE_URL, API_KEY, RECORD, SOUNDS } = process.env;
const URL_OF_CALLS = BASE_URL.replace('http', 'ws') + '/realtime';
const WEATHER = 'what is the weather like in london tomorrow';
const LIMIT_MS = 20_000;
const PIECE = 2400; // bytes: 50 ms

let runs = 0;
const weather = tool({
  name: 'get_weather',
  description: 'The weather in a city.',
  parameters: z.object({ city: z.string() }),
  execute: async () => {
    runs += 1;
    return JSON.stringify({ sky: 'purple rain' });
  },
});

class Call {
  events = [];
  audio = 0;
  interrupted = 0;
  #waiting = new Set();

  constructor(config = {}, apiKey = API_KEY) {
    const agent = new RealtimeAgent({ name: 'Guide', instructions: 'Be brief.', tools: [weather] });
    this.transport = new OpenAIRealtimeWebSocket({ url: URL_OF_CALLS });
    this.session = new RealtimeSession(agent, { transport: this.transport, model: 'gpt-realtime', config });
    this.apiKey = apiKey;
    this.transport.on('*', (event) => {
      appendFileSync(RECORD, JSON.stringify(event) + '\n');
      this.events.push(event);
      this.#wake();
    });
    this.session.on('audio', (event) => {
      this.audio += event.data.byteLength;
      this.#wake();
    });
    this.session.on('audio_interrupted', () => {
      this.interrupted += 1;
      this.#wake();
    });
    this.session.on('history_updated', () => this.#wake());
    this.session.on('error', (error) => {
      this.error = error;
      this.#wake();
    });
  }

  #wake() {
    for (const look of this.#waiting) look();
  }

  async connect() {
    await this.session.connect({ apiKey: this.apiKey });
    await this.until(() => this.count('session.updated') > 0, 'session.updated');
    return this;
  }

  // Wait until `found` gives something.
  until(found, what) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(look);
        reject(new Error(`no ${what} among ${this.types().join(' ')}`));
      }, LIMIT_MS);
      const look = () => {
        if (this.error) reject(new Error(`the session failed: ${JSON.stringify(this.error)} ${this.error.error}`));
        const result = found();
        if (!result) return;
        clearTimeout(timer);
        this.#waiting.delete(look);
        resolve(result);
      };
      this.#waiting.add(look);
      look();
    });
  }

  count(type) {
    return this.events.filter((event) => event.type === type).length;
  }

  nth(type, number = 1) {
    return this.until(() => this.events.filter((event) => event.type === type)[number - 1], `${type} (${number})`);
  }

  types() {
    return this.events.map((event) => event.type);
  }

  async speak(name, pauseMs = 0) {
    const data = readFileSync(`${SOUNDS}/${name}`);
    for (let at = 0; at < data.length; at += PIECE) {
      const piece = data.subarray(at, at + PIECE);
      this.session.sendAudio(piece.buffer.slice(piece.byteOffset, piece.byteOffset + piece.byteLength));
      if (pauseMs) await sleep(pauseMs);
    }
  }

  texts(role) {
    return this.session.history
      .filter((item) => item.type === 'message' && item.role === role)
      .map((item) => item.content.map((part) => part.text ?? part.transcript ?? '').join(' '));
  }
}

async function open(config, apiKey) {
  return new Call(config, apiKey).connect();
}

export async function text_turn() {
  const call = await open({ outputModalities: ['text'] });
  call.session.sendMessage('Tell me a joke.');
  const done = await call.nth('response.done');
  const said = done.response.output[0].content[0].text;
  await call.until(() => call.texts('assistant').includes(said), 'answer in the history');
  assert.deepEqual(call.texts('user'), ['Tell me a joke.']);
  call.session.close();
}

export async function secret_opens_a_call() {
  const headers = { Authorization: `Bearer ${API_KEY}`, 'Content-Type': 'application/json' };
  const minted = await fetch(`${BASE_URL}/realtime/client_secrets`, { method: 'POST', headers, body: '{}' });
  const { value } = await minted.json();
  assert.ok(value.startsWith('ek_'));
  const call = await open({}, value);
  call.session.close();
}

export async function audio_turn() {
  const call = await open();
  // The SDK updates the session more than once while it connects.
  const turns = () => call.events.findLast((event) => event.type === 'session.updated').session.audio.input.turn_detection;
  await call.until(() => turns().type === 'semantic_vad', 'the turn detection that it asks for');
  assert.equal(turns().interrupt_response, true);
  const ended = new Promise((resolve) => call.session.on('agent_end', (_context, _agent, output) => resolve(output)));
  await call.speak('how_are_you.pcm');
  await call.nth('response.done');
  await call.until(() => call.texts('user').some((text) => text.endsWith('today')), 'words in the history');
  assert.ok(call.audio > 24_000);
  assert.match(await ended, /thank you/);
  assert.equal(call.session.history.length, 2);
  assert.equal(call.session.history[0].role, 'user');
  call.session.close();
}

export async function g711_turn() {
  const call = await open({
    audio: { input: { format: { type: 'audio/pcmu' } }, output: { format: { type: 'audio/pcmu' } } },
  });
  await call.speak('how_are_you.ulaw');
  const done = await call.nth('response.done');
  assert.equal(done.response.audio.output.format.type, 'audio/pcmu');
  assert.ok(call.audio > 8_000);
  call.session.close();
}

export async function tool_runs_exactly_once() {
  const call = await open();
  call.session.sendMessage('What is the weather in London?');
  const done = await call.nth('response.done', 2);
  assert.match(done.response.output[0].content[0].transcript, /purple rain/);
  assert.equal(runs, 1);
  assert.equal(call.count('response.created'), 2);
  const item = call.session.history.find((item) => item.type === 'function_call');
  assert.equal(item.name, 'get_weather');
  assert.equal(item.status, 'completed');
  assert.match(item.output, /purple rain/);
  call.session.close();
}

export async function interruption() {
  const sent = [];
  const call = await open();
  const sendEvent = call.transport.sendEvent.bind(call.transport);
  call.transport.sendEvent = (event) => {
    sent.push(event.type);
    sendEvent(event);
  };
  call.session.sendMessage('Tell me a very long story.');
  await call.nth('response.output_audio.delta');
  await call.speak('how_are_you.pcm', 40);
  await call.until(() => call.interrupted > 0, 'interruption');
  const truncated = await call.nth('conversation.item.truncated');
  assert.ok(truncated.audio_end_ms > 0);
  assert.ok(!sent.includes('response.cancel'), 'the server interrupts, the client only truncates');
  const kept = await call.until(
    () =>
      call.session.history.find((item) => item.itemId === truncated.item_id)?.content[0]?.transcript?.length < 300 &&
      call.session.history.find((item) => item.itemId === truncated.item_id),
    'the story as it was heard',
  );
  assert.match(kept.content[0].transcript, /^Once upon a time/);
  await call.until(() => call.texts('assistant').some((text) => /thank you/.test(text)), 'an answer');
  const roles = call.session.history.map((item) => item.role);
  assert.deepEqual(roles, ['user', 'assistant', 'user', 'assistant']);
  call.session.close();
}

export async function history_is_edited() {
  const call = await open({ outputModalities: ['text'] });
  call.session.sendMessage('Tell me a joke.');
  await call.nth('response.done');
  await call.until(() => call.session.history.length === 2, 'two items');
  call.session.updateHistory((history) => history.filter((item) => item.role === 'user'));
  await call.nth('conversation.item.deleted');
  await call.until(() => call.session.history.length === 1, 'one item');
  call.session.updateHistory((history) => [
    ...history,
    { itemId: 'item_mine', type: 'message', role: 'user', status: 'completed', content: [{ type: 'input_text', text: 'Hm.' }] },
  ]);
  await call.until(() => call.session.history.some((item) => item.itemId === 'item_mine'), 'my item');
  call.session.close();
}

export async function eight_calls_at_once() {
  const calls = await Promise.all(Array.from({ length: 8 }, () => open({ outputModalities: ['text'] })));
  const texts = await Promise.all(
    calls.map(async (call, number) => {
      call.session.sendMessage(`Repeat after me: the number ${number}.`);
      const text = (await call.nth('response.done')).response.output[0].content[0].text;
      call.session.close();
      return text;
    }),
  );
  texts.forEach((text, number) => assert.match(text, new RegExp(`number ${number}`)));
}

for (const kind of ['uncaughtException', 'unhandledRejection']) {
  process.on(kind, (error) => {
    console.error(error);
    process.exit(1);
  });
}
import(import.meta.url)
  .then((scenarios) => scenarios[process.argv[2]]())
  .then(() => process.exit(0));
