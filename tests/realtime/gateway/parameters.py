"""Every parameter and return field of the published methods: one row each, for any client.

A row calls one method with named options and says what the vendor must have received, what the answer must
hold, or which error comes. Names are those of the TypeScript client; `test_parameters.py` says what they are
called in Python. Where the vendors go wrong or answer in a special way, `prepare` tells the stubs to.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from media.audio import RATE_IN
from realtime.adapters.embedded.drawing import png
from realtime.adapters.wav import wav
from tests.realtime.gateway.conftest import Vendors
from tests.vendors.openai_stub import CHAT, EMBEDDINGS, IMAGES, SPEECH, TRANSCRIPTIONS, Plan

PNG = base64.b64encode(png(np.zeros((4, 4, 3), np.uint8))).decode()
CLIP = base64.b64encode(wav((800 * np.sin(np.arange(RATE_IN) / 5)).astype(np.int16), RATE_IN)).decode()
"""A second of a tone."""
FETCHED = {"https://example.com/photo.png": PNG, "https://example.com/clip.wav": CLIP}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOL = {"name": "get_weather", "description": "d", "parameters": {"type": "object", "properties": {}}}
FILE = r"http://127\.0\.0\.1:\d+/v1/ai/files/file_\S+\.{}\?exp=\d+&sig=\w+"


@dataclass(frozen=True)
class Row:
    """`sent`: path, and a part of what the vendor received there. `gives`: a value, a type, or a regular
    expression in `Like`, by its path in the answer. `times`: identical calls; the last one's answer is looked at.
    `asked`: how many requests to `sent`'s path, or to chat, the vendors saw in all."""

    name: str
    method: str
    options: Mapping[str, Any]
    sent: tuple[str, Mapping[str, Any]] | None = None
    gives: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    prepare: Callable[[Vendors], None] = lambda vendors: None
    times: int = 1
    asked: int | None = None

    def __str__(self) -> str:
        return f"{self.method}.{self.name}"


@dataclass(frozen=True)
class Like:
    pattern: str


def _chat(name: str, sent: Mapping[str, Any] | None = None, gives: Mapping[str, Any] | None = None,
          **options: Any) -> Row:  # fmt: skip
    given = {"messages": "Hi", **options}
    return Row(name, "chat", given, (CHAT, sent) if sent is not None else None, gives or {"content": GREETING})


GREETING = "Hello there, friend."
HI = [{"role": "user", "content": "Hi"}]


def _json(vendors: Vendors) -> None:
    for stub in vendors.stubs:
        stub.tokens = ['{"a"', ": 1}"]


def _never_json(vendors: Vendors) -> None:
    for stub in vendors.stubs:
        stub.tokens = ["no"]


def _tool_calls(vendors: Vendors) -> None:
    for stub in vendors.stubs:
        stub.tool_calls = [("get_weather", '{"city": "Paris"}')]


def _first_is_ill(vendors: Vendors) -> None:
    vendors.first.plan(CHAT, Plan(status=503), times=4)


def _hangs(vendors: Vendors) -> None:
    for stub in vendors.stubs:
        stub.plan(CHAT, Plan(hang=True), times=4)


_FIRST = {"metadata.vendor": "first"}
_SECOND = {"metadata.vendor": "second", "metadata.model": "gpt-two"}
_CALLS = {
    "content": None,
    "finish_reason": "tool_calls",
    "tool_calls.0.id": str,
    "tool_calls.0.function.name": "get_weather",
    "tool_calls.0.function.arguments": '{"city": "Paris"}',
}

CHAT_ROWS = [
    _chat("messages as text", {"messages": HI}),
    _chat("messages as list", {"messages": [{"role": "system", "content": "Be brief."}, *HI]},
          messages=[{"role": "system", "content": "Be brief."}, *HI]),
    _chat("model", {"model": "gpt-two"}, _SECOND, model="gpt-two"),
    _chat("vendor", {"model": "gpt-two"}, _SECOND, vendor="second"),
    _chat("task", None, _SECOND, task="coding", prefer="smartest"),
    _chat("prefer cheapest", None, _FIRST, prefer="cheapest"),
    _chat("prefer smartest", None, {"metadata.vendor": "dear"}, prefer="smartest"),
    _chat("prefer balanced", None, _FIRST, prefer="balanced"),
    _chat("temperature", {"temperature": 0.25}, temperature=0.25),
    _chat("max_tokens", {"max_tokens": 7}, max_tokens=7),
    Row("tools", "chat", {"messages": "Hi", "tools": [TOOL]},
        (CHAT, {"tools": [{"type": "function", "function": TOOL}]}), _CALLS, prepare=_tool_calls),
    Row("tool_choice", "chat", {"messages": "Hi", "tools": [TOOL], "tool_choice": "required"},
        (CHAT, {"tool_choice": "required"}), _CALLS, prepare=_tool_calls),
    Row("response_format json_object", "chat", {"messages": "Hi", "response_format": {"type": "json_object"}},
        (CHAT, {"response_format": {"type": "json_object"}}), {"content": '{"a": 1}'}, prepare=_json),
    Row("response_format json_schema", "chat",
        {"messages": "Hi", "response_format": {"type": "json_schema", "schema": SCHEMA}},
        (CHAT, {"response_format": {
            "type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": False}}}),
        {"content": '{"a": 1}'}, prepare=_json),
    Row("response_format that does not come", "chat", {"messages": "Hi", "response_format": {"type": "json_object"}},
        (CHAT, {}), error="invalid_structured_output", prepare=_never_json, asked=2),
    _chat("response_format text", {}, response_format={"type": "text"}),
    Row("cache_strategy infrai", "chat", {"messages": "Cached", "cache_strategy": "infrai"},
        (CHAT, {}), {"metadata.cache": "hit", "content": GREETING}, times=2, asked=1),
    Row("cache_strategy vendor", "chat", {"messages": "Hi", "cache_strategy": "vendor"},
        (CHAT, {}), {"metadata.cache": "bypass"}, times=2, asked=2),
    Row("cache_strategy none", "chat", {"messages": "Hi", "cache_strategy": "none"},
        (CHAT, {}), {"metadata.cache": "bypass"}, times=2, asked=2),
    _chat("batch_mode", None, {"content": GREETING, "metadata.batch_id": str, "metadata.discount": None,
                               "metadata.warnings": ["batch_unsupported"]}, batch_mode=True),
    Row("batch_mode that takes longer", "chat", {"messages": "Hi", "batch_mode": True, "timeout_seconds": 0.3},
        (CHAT, {}), {"object": "batch_job", "id": Like(r"batch_\S+"), "status": str, "poll_url": str}, prepare=_hangs),
    Row("max_cost_multiplier", "chat", {"messages": "Hi", "max_cost_multiplier": 1.5},
        (CHAT, {}), {**_SECOND, "metadata.failover": True}, prepare=_first_is_ill),
    Row("max_cost_multiplier 0", "chat", {"messages": "Hi", "max_cost_multiplier": 0},
        (CHAT, {}), error="vendor_overloaded", prepare=_first_is_ill),
    _chat("stream", {"stream": True}, {"content": GREETING, "finish_reason": "stop", "metadata.vendor": "first"},
          stream=True),
    Row("timeout_seconds", "chat", {"messages": "Hi", "timeout_seconds": 0.3}, error="vendor_timeout", prepare=_hangs),
    Row("idempotency_key", "chat", {"messages": "Hi", "idempotency_key": "key"}, (CHAT, {}),
        {"content": GREETING, "metadata.idempotent_replay": True}, times=2, asked=1),
    _chat("returns content", None, {"content": GREETING}),
    _chat("returns finish_reason", None, {"finish_reason": "stop"}),
    _chat("returns usage", None, {"usage.input_tokens": 11, "usage.output_tokens": 5, "usage.total_tokens": 16,
                                  "usage.cached_tokens": 3, "usage.prompt_tokens": 11, "usage.completion_tokens": 5}),
    _chat("returns metadata", None, {
        "metadata.request_id": Like(r"req_\w+"), "metadata.vendor": "first", "metadata.model": "gpt-one",
        "metadata.latency_ms": float, "metadata.ttft_ms": float, "metadata.cost_usd": 2.1e-05,
        "metadata.cache": "bypass", "metadata.attempts": list, "metadata.failover": False,
        "metadata.idempotent_replay": False, "metadata.warnings": []}),
    Row("an unknown field", "chat", {"messages": "Hi", "temperature": 3}, error="invalid_value"),
]  # fmt: skip

_CHUNKS = {
    "0.delta.role": "assistant", "0.delta.content": "Hello", "0.finish_reason": None, "0.index": 0,
    "1.delta.content": " there", "5.finish_reason": "stop", "5.usage.output_tokens": 5, "5.metadata.vendor": "first",
}  # fmt: skip

STREAM_ROWS = [
    Row("messages as text", "streamChat", {"messages": "Hi"}, (CHAT, {"messages": HI, "stream": True}), _CHUNKS),
    Row("messages as list", "streamChat", {"messages": HI}, (CHAT, {"messages": HI}), _CHUNKS),
    Row("delta.tool_calls", "streamChat", {"messages": "Hi", "tools": [TOOL]}, None,
        {"0.delta.tool_calls.0.function.name": "get_weather", "0.delta.tool_calls.0.index": 0}, prepare=_tool_calls),
    Row("an error in the middle", "streamChat", {"messages": "Hi"}, error="vendor_error",
        prepare=lambda vendors: vendors.first.plan(CHAT, Plan(garbage=True, after=3))),
    Row("an error before it", "streamChat", {"messages": "Hi", "model": "gone"}, error="model_not_found"),
]  # fmt: skip

EMBED_ROWS = [
    Row("input as text", "embed", {"input": "Hi"}, (EMBEDDINGS, {"input": ["Hi"]}), {"embeddings.0.0": 2.0}),
    Row("input as list", "embed", {"input": ["Hi", "you"]}, (EMBEDDINGS, {"input": ["Hi", "you"]}),
        {"embeddings.0.0": 2.0, "embeddings.1.0": 3.0}),
    Row("model", "embed", {"input": "Hi", "model": "embed-two"}, (EMBEDDINGS, {"model": "embed-two"}),
        {"model": "embed-two", "metadata.vendor": "second"}),
    Row("vendor", "embed", {"input": "Hi", "vendor": "second"}, (EMBEDDINGS, {"model": "embed-two"}),
        {"metadata.vendor": "second"}),
    Row("dimensions", "embed", {"input": "Hi", "dimensions": 3}, (EMBEDDINGS, {"dimensions": 3}),
        {"embeddings.0": [2.0, 0.5, 0.5]}),
    Row("dimensions that the model has not", "embed", {"input": "Hi", "dimensions": 3, "model": "embed-two"},
        error="unsupported"),
    Row("idempotency_key", "embed", {"input": "Hi", "idempotency_key": "key"}, (EMBEDDINGS, {}),
        {"metadata.idempotent_replay": True}, times=2, asked=1),
    Row("returns embeddings", "embed", {"input": "Hi"}, None, {"embeddings": list, "embeddings.0": list}),
    Row("returns model", "embed", {"input": "Hi"}, None, {"model": "embed-one"}),
    Row("returns usage", "embed", {"input": "Hi"}, None, {"usage.input_tokens": 7, "usage.total_tokens": 7}),
    Row("returns metadata", "embed", {"input": "Hi"}, None,
        {"metadata.vendor": "first", "metadata.cost_usd": 7e-06, "metadata.request_id": str}),
]  # fmt: skip

IMAGE_ROWS = [
    Row("prompt", "image", {"prompt": "A cat"}, (IMAGES, {"prompt": "A cat"}),
        {"images.0.url": Like(FILE.format("png"))}),
    Row("size", "image", {"prompt": "A cat", "size": "1024x512"}, (IMAGES, {"size": "1024x512"}), {"images": list}),
    Row("size that is none", "image", {"prompt": "A cat", "size": "large"}, error="invalid_value"),
    Row("n", "image", {"prompt": "A cat", "n": 3}, (IMAGES, {"n": 3}),
        {"images.2.url": Like(FILE.format("png")), "usage.images": 3}),
    Row("prefer", "image", {"prompt": "A cat", "prefer": "cheapest"}, (IMAGES, {}), {"metadata.vendor": "first"}),
    Row("model", "image", {"prompt": "A cat", "model": "draw-one"}, (IMAGES, {"model": "draw-one"}), {"images": list}),
    Row("vendor", "image", {"prompt": "A cat", "vendor": "first"}, (IMAGES, {}), {"metadata.vendor": "first"}),
    Row("returns url", "image", {"prompt": "A cat"}, None, {"images.0.url": Like(FILE.format("png"))}),
    Row("returns b64", "image", {"prompt": "A cat", "include": ["b64"]}, None,
        {"images.0.b64": base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"not really" * 3).decode()}),
    Row("idempotency_key", "image", {"prompt": "A cat", "idempotency_key": "key"}, (IMAGES, {}),
        {"metadata.idempotent_replay": True}, times=2, asked=1),
]  # fmt: skip

_LOOK = {
    "messages": [{"role": "user", "content": [
        {"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}},
    ]}],
}  # fmt: skip

VISION_ROWS = [
    Row("prompt, and images as base64", "vision", {"prompt": "What?", "images": [{"base64": PNG, "mime": "image/png"}]},
        (CHAT, _LOOK), {"content": GREETING}),
    Row("images as url", "vision", {"prompt": "What?", "images": [{"url": "https://example.com/photo.png"}]},
        (CHAT, _LOOK), {"content": GREETING}),
    Row("model", "vision", {"prompt": "What?", "images": [{"base64": PNG}], "model": "gpt-two"},
        (CHAT, {"model": "gpt-two"}), _SECOND),
    Row("vendor", "vision", {"prompt": "What?", "images": [{"base64": PNG}], "vendor": "second"}, None, _SECOND),
    Row("no image", "vision", {"prompt": "What?", "images": []}, error="invalid_value"),
    Row("returns a ChatResult", "vision", {"prompt": "What?", "images": [{"base64": PNG}]}, None,
        {"content": GREETING, "finish_reason": "stop", "usage.input_tokens": 11, "metadata.vendor": str}),
]  # fmt: skip

TTS_ROWS = [
    Row("input", "tts", {"input": "Hello."}, (SPEECH, {"input": "Hello."}), {"audio_url": Like(FILE.format("mp3"))}),
    Row("voice", "tts", {"input": "Hello.", "voice": "sage"}, (SPEECH, {"voice": "sage"}), {"format": "mp3"}),
    *[
        Row(f"format {form}", "tts", {"input": "Hello.", "format": form}, None,
            {"audio_url": Like(FILE.format(form)), "format": form, "sample_rate": 24_000})
        for form in ("mp3", "wav", "ogg", "pcm")
    ],
    Row("format that is none", "tts", {"input": "Hello.", "format": "flac"}, error="invalid_value"),
    Row("model", "tts", {"input": "Hello.", "model": "say-two"}, (SPEECH, {"model": "say-two"}),
        {"metadata.vendor": "second"}),
    Row("vendor", "tts", {"input": "Hello.", "vendor": "second"}, None, {"metadata.vendor": "second"}),
    Row("returns audio_url and format", "tts", {"input": "Hello."}, None,
        {"audio_url": Like(FILE.format("mp3")), "format": "mp3"}),
]  # fmt: skip

ASR_ROWS = [
    Row("audio as base64", "asr", {"audio": {"base64": CLIP, "mime": "audio/wav"}}, (TRANSCRIPTIONS, {}),
        {"text": "what was said"}),
    Row("audio as url", "asr", {"audio": {"url": "https://example.com/clip.wav"}}, (TRANSCRIPTIONS, {}),
        {"text": "what was said"}),
    Row("language", "asr", {"audio": {"base64": CLIP}, "language": "de"}, (TRANSCRIPTIONS, {"language": "de"}),
        {"text": "what was said"}),
    Row("model", "asr", {"audio": {"base64": CLIP}, "model": "hear-two"}, (TRANSCRIPTIONS, {"model": "hear-two"}),
        {"metadata.vendor": "second"}),
    Row("vendor", "asr", {"audio": {"base64": CLIP}, "vendor": "second"}, None, {"metadata.vendor": "second"}),
    Row("audio that is none", "asr", {"audio": {"base64": "bm90IGF1ZGlv"}}, error="unknown_format"),
    Row("returns text", "asr", {"audio": {"base64": CLIP}}, None, {"text": "what was said"}),
    Row("returns language", "asr", {"audio": {"base64": CLIP}}, None, {"language": "en"}),
    Row("returns segments", "asr", {"audio": {"base64": CLIP}}, None,
        {"segments.0.id": 0, "segments.0.start": 0.0, "segments.0.end": 3.0, "segments.0.text": "what was said",
         "segments.0.words.1.word": "was", "segments.0.words.1.start": 1.0, "segments.0.words.1.end": 1.9}),
]  # fmt: skip

TOKEN_ROWS = [
    Row("model", "liveToken", {"model": "gpt-two"}, None, {"model": "gpt-two"}),
    Row("voice", "liveToken", {"voice": "verse"}, None, {"voice": "verse"}),
    Row("ttl_seconds", "liveToken", {"ttl_seconds": 60}, None, {"expires_at": int}),
    Row("ttl_seconds out of range", "liveToken", {"ttl_seconds": 5}, error="invalid_value"),
    Row("returns", "liveToken", {}, None,
        {"session_id": Like(r"sess_\S+"), "ice_servers": list, "token": str, "expires_at": int}),
]  # fmt: skip

ROWS = [*CHAT_ROWS, *STREAM_ROWS, *EMBED_ROWS, *IMAGE_ROWS, *VISION_ROWS, *TTS_ROWS, *ASR_ROWS, *TOKEN_ROWS]
