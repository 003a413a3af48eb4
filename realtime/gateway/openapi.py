"""What the OpenAPI document says of the one-shot endpoints: bodies, examples, errors.

The endpoints read their bodies themselves, so that credentials come before parsing; this describes them.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

ERRORS = {
    400: "The body is not JSON.",
    401: "No API key, or none that is valid.",
    403: "The key lacks the scope.",
    404: "There is no such model.",
    408: "The body did not arrive in time.",
    409: "A request with this idempotency key is still running.",
    413: "The body, or something in it, is too large.",
    422: "A field is wrong or unknown; `error.param` names it.",
    429: "Over a limit of this key or of the vendor; see `Retry-After`.",
    502: "No vendor could answer.",
    503: "Busy; see `Retry-After`.",
    504: "The time given by `timeout_seconds` is over.",
}

PROBLEM: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance", "error"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "error": {
            "type": "object",
            "required": ["type", "code", "message", "request_id", "retryable"],
            "properties": {
                "type": {"type": "string"},
                "code": {"type": "string"},
                "message": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "request_id": {"type": "string"},
                "retryable": {"type": "boolean"},
            },
        },
    },
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Descriptions of error answers."""
    return {
        status: {"description": ERRORS[status], "content": {"application/problem+json": {"schema": PROBLEM}}}
        for status in statuses or ERRORS
    }


def described(name: str, model: type[BaseModel], result: dict[str, Any] | None = None) -> dict[str, Any]:
    """Keyword arguments of `add_api_route`."""
    about = ABOUT[name]
    content: dict[str, Any] = {"schema": schema_of(model), "examples": _named(about["examples"])}
    answers: dict[int | str, dict[str, Any]] = {
        200: {
            "description": about["returns"],
            "content": {"application/json": {"schema": result or {"type": "object"}, "example": about["answer"]}},
        },
        **problems(),
        **about.get("more", {}),
    }
    return {
        "operation_id": name,
        "summary": about["summary"],
        "description": about["description"],
        "responses": answers,
        "openapi_extra": {"requestBody": {"required": True, "content": {"application/json": content}}},
    }


def _named(examples: dict[str, Any]) -> dict[str, Any]:
    return {name: {"value": value} for name, value in examples.items()}


def schema_of(model: type[BaseModel]) -> dict[str, Any]:
    """The JSON schema with its definitions put in place: OpenAPI looks for references elsewhere."""
    schema = model.model_json_schema(by_alias=True)
    definitions = schema.pop("$defs", {})

    def resolved(node: Any) -> Any:
        if isinstance(node, list):
            return [resolved(item) for item in node]
        if not isinstance(node, dict):
            return node
        if isinstance(node.get("$ref"), str):
            rest = {name: value for name, value in node.items() if name != "$ref"}
            return resolved({**definitions[node["$ref"].rpartition("/")[2]], **rest})
        return {name: resolved(value) for name, value in node.items()}

    whole: dict[str, Any] = resolved(schema)
    return whole


METADATA = {
    "request_id": "req_5d1c", "vendor": "openai", "model": "gpt-4o-mini", "latency_ms": 412.0, "ttft_ms": 301.5,
    "cost_usd": 0.000031, "cache": "bypass",
    "attempts": [{"vendor": "openai", "model": "gpt-4o-mini", "status": "ok", "ms": 410.2}],
    "failover": False, "idempotent_replay": False, "warnings": [],
}  # fmt: skip
USAGE = {"input_tokens": 14, "output_tokens": 48, "total_tokens": 62, "prompt_tokens": 14, "completion_tokens": 48}
CHAT_ANSWER = {"content": "Rocco the raccoon …", "finish_reason": "stop", "usage": USAGE, "metadata": METADATA}
EVENTS = """data: {"delta": {"role": "assistant", "content": "Rocco"}, "finish_reason": null, "index": 0}

data: {"delta": {}, "index": 0, "finish_reason": "stop", "usage": {"input_tokens": 14}, "metadata": {}}

data: [DONE]

"""
JOB: dict[int | str, dict[str, Any]] = {
    202: {"description": "A batch job that is not done yet; its address is in `Location`."}
}

ABOUT: dict[str, dict[str, Any]] = {
    "chat": {
        "summary": "Chat completion",
        "description": "One answer of a model, chosen by `model`, `vendor`, or `task` and `prefer`. With "
        "`stream: true` it comes as server-sent events: chunks `{delta, finish_reason, index}`, the last with "
        "`usage` and `metadata`, then `[DONE]`.",
        "returns": "A ChatResult, or its events.",
        "examples": {
            "prompt": {"messages": "Tell me a 50-word story about a curious raccoon.", "prefer": "balanced"},
            "conversation": {"messages": [{"role": "user", "content": "Hello"}], "stream": True},
        },
        "answer": CHAT_ANSWER,
        "more": JOB,
    },
    "embed": {
        "summary": "Text embeddings",
        "description": "One vector for each text, in order; `embeddings` is always a list of vectors.",
        "returns": "An EmbedResult.",
        "examples": {"one": {"input": "What animal has clever paws?"}, "many": {"input": ["a", "b"], "dimensions": 64}},
        "answer": {"embeddings": [[0.6, 0.8]], "model": "hashing", "usage": {"input_tokens": 5}, "metadata": METADATA},
    },
    "image": {
        "summary": "Images from text",
        "description": "Images are stored here and served by signed URLs that expire.",
        "returns": "The images' addresses.",
        "examples": {"one": {"prompt": "A watercolor raccoon reading a book", "size": "1024x1024", "n": 1}},
        "answer": {"images": [{"url": "https://voice.example/v1/ai/files/…"}], "metadata": METADATA},
    },
    "vision": {
        "summary": "Questions about images",
        "description": "Images come as URLs, which this server fetches under guard, or as base64.",
        "returns": "A ChatResult.",
        "examples": {"url": {"prompt": "What's in this image?", "images": [{"url": "https://example.com/photo.jpg"}]}},
        "answer": CHAT_ANSWER,
    },
    "tts": {
        "summary": "Speech from text",
        "description": "The audio is stored here and served by a signed URL that expires. With `Accept: audio/*` its "
        "bytes come at once, before synthesis ends.",
        "returns": "The audio's address.",
        "examples": {"mp3": {"input": "Hello from Infrai.", "voice": "alloy", "format": "mp3"}},
        "answer": {"audio_url": "https://voice.example/v1/ai/files/…", "format": "mp3", "metadata": METADATA},
    },
    "asr": {
        "summary": "Text from speech",
        "description": "Audio comes as a URL, which this server fetches under guard, as base64, or as an upload "
        "(`multipart/form-data` with the field `audio`).",
        "returns": "The transcript.",
        "examples": {"url": {"audio": {"url": "https://example.com/clip.mp3"}, "language": "en"}},
        "answer": {"text": "Hello.", "language": "en", "segments": []},
    },
}  # fmt: skip
