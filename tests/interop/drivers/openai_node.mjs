// `openai` for Node. It always speaks TLS, so a terminator stands in front of the server, as a proxy would.
import assert from 'node:assert/strict';
import { appendFileSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { createServer } from 'node:tls';
import OpenAI from 'openai';
import { OpenAIRealtimeWebSocket } from 'openai/realtime/websocket';
import { OpenAIRealtimeWS } from 'openai/realtime/ws';
import * as ws from 'ws';

const { API_KEY, BASE_URL, NODE_EXTRA_CA_CERTS, RECORD, SOUNDS } = process.env;
const LIMIT_MS = 20_000;

async function proxied() {
  const files = { cert: readFileSync(NODE_EXTRA_CA_CERTS), key: readFileSync(NODE_EXTRA_CA_CERTS.replace('.pem', '.key')) };
  const front = createServer(files, (socket) => {
    const back = connect(new URL(BASE_URL).port, '127.0.0.1');
    for (const end of [socket, back]) end.on('error', () => {});
    socket.pipe(back).pipe(socket);
  });
  await new Promise((resolve) => front.listen(0, '127.0.0.1', resolve));
  return `https://127.0.0.1:${front.address().port}/v1`;
}

async function clientOf(apiKey = API_KEY) {
  return new OpenAI({ apiKey, baseURL: await proxied() });
}

function recorded(realtime) {
  const events = [];
  const waiting = new Set();
  realtime.on('event', (event) => {
    appendFileSync(RECORD, JSON.stringify(event) + '\n');
    events.push(event);
    for (const look of waiting) look();
  });
  const until = (type) =>
    new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no ${type} among ${events.map((event) => event.type)}`)), LIMIT_MS);
      const look = () => {
        const found = events.find((event) => event.type === type);
        if (!found) return;
        clearTimeout(timer);
        waiting.delete(look);
        resolve(found);
      };
      waiting.add(look);
      look();
    });
  return { events, until };
}

async function holdATextTurn(realtime) {
  const { until } = recorded(realtime);
  await until('session.created');
  realtime.send({ type: 'session.update', session: { type: 'realtime', output_modalities: ['text'] } });
  await until('session.updated');
  const content = [{ type: 'input_text', text: 'Tell me a joke.' }];
  realtime.send({ type: 'conversation.item.create', item: { type: 'message', role: 'user', content } });
  realtime.send({ type: 'response.create' });
  const done = await until('response.done');
  assert.ok(done.response.output[0].content[0].text);
  realtime.close();
}

export async function text_turn_by_ws() {
  await holdATextTurn(new OpenAIRealtimeWS({ model: 'gpt-realtime' }, await clientOf()));
}

// Browsers' WebSocket has no headers: the key goes as a sub-protocol, and `realtime` has to be chosen.
export async function text_turn_by_web_socket_with_a_secret() {
  globalThis.WebSocket ??= ws.WebSocket;
  const secret = await (await clientOf()).realtime.clientSecrets.create({ session: { type: 'realtime' } });
  const realtime = new OpenAIRealtimeWebSocket({ model: 'gpt-realtime' }, await clientOf(secret.value));
  await holdATextTurn(realtime);
}

export async function voice_turn() {
  const realtime = new OpenAIRealtimeWS({ model: 'gpt-realtime' }, await clientOf());
  const { events, until } = recorded(realtime);
  await until('session.created');
  realtime.send({ type: 'input_audio_buffer.append', audio: readFileSync(`${SOUNDS}/how_are_you.pcm`).toString('base64') });
  const heard = await until('conversation.item.input_audio_transcription.completed');
  assert.match(heard.transcript, /today$/);
  await until('response.done');
  assert.ok(events.some((event) => event.type === 'response.output_audio.delta'));
  realtime.close();
}

export async function wrong_key() {
  const realtime = new OpenAIRealtimeWS({ model: 'gpt-realtime' }, await clientOf('nonsense'));
  const error = await new Promise((resolve) => realtime.on('error', resolve));
  assert.match(String(error), /401/);
  await assert.rejects((await clientOf('nonsense')).realtime.clientSecrets.create({}), (refusal) => refusal.status === 401);
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
