// The published TypeScript as it stands, then every method with the names and types of the published tables.
import { InfraiClient } from "@infrai/sdk";
const client = new InfraiClient({ apiKey: process.env.INFRAI_API_KEY! });
// → client.ai

import type { AsrResult, BatchJob, ChatOptions, ChatResult, ChatStreamChunk, EmbedOptions, EmbedResult } from "@infrai/sdk";
import type { ImageOptions, LiveSessionToken, TtsOptions, VisionOptions } from "@infrai/sdk";
declare const process: { env: Record<string, string | undefined>; stdout: { write(text: string): void } };

const chat: ChatOptions = {
  messages: [{ role: "user", content: "Tell me a 50-word story about a curious raccoon." }],
  task: "general", prefer: "balanced", temperature: 0.5, max_tokens: 200, cache_strategy: "none",
  response_format: { type: "text" }, max_cost_multiplier: 1.5, idempotency_key: `key-${Date.now()}`,
};
const result: ChatResult = await client.ai.chat(chat);
const stop = new AbortController();
let streamed = "";
const chunks: AsyncIterable<ChatStreamChunk> = client.ai.streamChat({ messages: "Tell me a story.", signal: stop.signal });
for await (const { delta, finish_reason, index } of chunks) {
  streamed += delta.content ?? "";
  if (index !== 0 && finish_reason !== null) throw new Error("there is one choice");
}
const job: ChatResult | BatchJob = await client.ai.chat({ messages: "Hi", batch_mode: true, timeout_seconds: 0.05 });
const batched: ChatResult = "object" in job ? await client.ai.wait(job) : job;
const embed: EmbedOptions = { input: ["What animal has clever paws?"], dimensions: 64 };
const { embeddings, model, usage }: EmbedResult = await client.ai.embed(embed);
const image: ImageOptions = { prompt: "A watercolor raccoon", size: "256x256", n: 1, prefer: "balanced", include: ["b64"] };
const { images } = await client.ai.image(image);
const vision: VisionOptions = { prompt: "What's in this image?", images: [{ base64: images[0]!.b64!, mime: "image/png" }] };
const seen: ChatResult = await client.ai.vision(vision);
const tts: TtsOptions = { input: "Hello from Infrai.", voice: "alloy", format: "wav" };
const { audio_url, format } = await client.ai.tts(tts);
const audio = await (await fetch(audio_url)).blob();
const { text, language, segments }: AsrResult = await client.ai.asr({ audio, language: "en" });
const token: LiveSessionToken = await client.ai.liveToken({ ttl_seconds: 300 });

// @ts-expect-error a field that is none
client.ai.chat({ messages: "Hi", max_token: 5 }).catch(() => {});
// @ts-expect-error there must be something to say
client.ai.chat({ temperature: 1 }).catch(() => {});

process.stdout.write(JSON.stringify({
  result, streamed, batched, dimensions: embeddings[0]!.length, model, usage, images, seen, audio_url, format,
  text, language, segments, token,
}));
