// Calls the methods that lines of JSON on its input name, with the client at argv[2]; a line of JSON for each answer.

import { createInterface } from "node:readline";

const { InfraiClient, InfraiError } = await import(process.argv[2]);
const client = new InfraiClient({ apiKey: process.env.INFRAI_API_KEY });

async function call({ method, options, abort_after }) {
  const leave = new AbortController();
  const made = client.ai[method]({ ...options, signal: leave.signal });
  if (abort_after === 0) leave.abort();
  if (method !== "streamChat") return made;
  const chunks = [];
  for await (const chunk of made) {
    chunks.push(chunk);
    if (chunks.length === abort_after) leave.abort();
  }
  return chunks;
}

for await (const line of createInterface({ input: process.stdin })) {
  const answer = await call(JSON.parse(line)).then(
    (value) => ({ value }),
    (error) => ({ error: error instanceof InfraiError ? error.code : String(error?.stack ?? error) }),
  );
  console.log(JSON.stringify(answer));
}
