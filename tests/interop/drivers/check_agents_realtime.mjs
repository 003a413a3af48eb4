// Reads server events, one JSON object a line, and prints those that `@openai/agents-realtime` would demote to
// generic ones, and messages that its history could not hold.
import { readFileSync } from 'node:fs';
import { realtimeMessageItemSchema } from './node_modules/@openai/agents-realtime/dist/items.mjs';
import { parseRealtimeEvent, realtimeServerEventSchema } from './node_modules/@openai/agents-realtime/dist/openaiRealtimeEvents.mjs';

const ITEMS = new Set(['conversation.item.added', 'conversation.item.done', 'conversation.item.retrieved']);
for (const line of readFileSync(0, 'utf8').split('\n').filter(Boolean)) {
  const event = JSON.parse(line);
  if (parseRealtimeEvent({ data: line }).isGeneric) {
    const issues = realtimeServerEventSchema.safeParse(event).error.issues.slice(0, 3);
    console.log(event.type, JSON.stringify(issues), line.slice(0, 500));
  } else if (ITEMS.has(event.type) && event.item.type === 'message') {
    const { id: itemId, type, role, content, status } = event.item;
    const judged = realtimeMessageItemSchema.safeParse({ itemId, type, role, content, status });
    if (!judged.success) console.log(event.type, JSON.stringify(judged.error.issues.slice(0, 3)), line.slice(0, 500));
  }
}
