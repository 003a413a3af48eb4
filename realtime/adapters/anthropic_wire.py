"""What goes to Anthropic's Messages API and what comes back, without I/O.

`message_body` writes a request; `Events` turns the events of a streamed answer into deltas, `whole` a message that
came at once.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from realtime.adapters.base import (
    ChatDelta,
    ChatEnd,
    ChatRequest,
    EngineError,
    Message,
    TextDelta,
    ToolCallDelta,
    Usage,
)

if TYPE_CHECKING:
    import anthropic

DEFAULT_MAX_TOKENS = 8192
"""The API wants a number; this is what every current model takes."""

Finish = Literal["stop", "length", "tool_calls", "content_filter"]
_FINISH: dict[str, Finish] = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""Everything else is an ordinary end."""


class Events:
    """Events in, deltas out. Tool calls are numbered among themselves; the API numbers all blocks together."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._begun = Usage()
        self._written = 0
        self._reason: str | None = None

    def event(self, event: Any) -> list[ChatDelta]:
        match event.type:
            case "message_start":
                self._begun = usage_of(event.message.usage)
            case "content_block_start" if event.content_block.type == "tool_use":
                number = self._numbers[event.index] = len(self._numbers)
                return [ToolCallDelta(number, "", event.content_block.id, event.content_block.name)]
            case "content_block_delta" if event.delta.type == "text_delta":
                return [TextDelta(event.delta.text)] if event.delta.text else []
            case "content_block_delta" if event.delta.type == "input_json_delta":
                return [ToolCallDelta(self._numbers.get(event.index, 0), event.delta.partial_json)]
            case "message_delta":
                self._reason = event.delta.stop_reason or self._reason
                self._written = event.usage.output_tokens or self._written
        return []

    def end(self, engine: str) -> ChatEnd:
        if self._reason is None:
            raise EngineError(f"{engine}: the answer stopped in the middle", code="bad_response", engine=engine)
        return ChatEnd(finish_reason(self._reason), replace(self._begun, output_tokens=self._written))


def whole(message: anthropic.types.Message) -> list[ChatDelta]:
    """A message that was not streamed."""
    deltas: list[ChatDelta] = []
    calls = 0
    for block in message.content:
        if block.type == "text" and block.text:
            deltas.append(TextDelta(block.text))
        elif block.type == "tool_use":
            deltas.append(ToolCallDelta(calls, json.dumps(block.input), block.id, block.name))
            calls += 1
    return [*deltas, ChatEnd(finish_reason(message.stop_reason), usage_of(message.usage))]


def finish_reason(reason: str | None) -> Finish:
    return _FINISH.get(reason or "", "stop")


def usage_of(usage: anthropic.types.Usage) -> Usage:
    """All that was read, whether or not it was in the vendor's cache."""
    cached = usage.cache_read_input_tokens or 0
    read = usage.input_tokens + cached + (usage.cache_creation_input_tokens or 0)
    return Usage(read, usage.output_tokens, cached)


# --- requests -----------------------------------------------------------------------------------


def message_body(request: ChatRequest, model: str, temperature: float | None) -> dict[str, Any]:
    """The JSON body. `temperature` is the model's own, for a request that names none."""
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": request.max_tokens or DEFAULT_MAX_TOKENS,
        "messages": _messages(request.messages),
    }
    system = "\n\n".join(one.content for one in request.messages if one.role == "system" and one.content)
    if system:
        body["system"] = system
    if request.tools:
        body["tools"] = [
            {
                "name": tool.name,
                "description": tool.description,
                "input_schema": dict(tool.parameters) or {"type": "object", "properties": {}},
            }
            for tool in request.tools
        ]
        body["tool_choice"] = _tool_choice(request.tool_choice)
    wanted = temperature if request.temperature is None else request.temperature
    if wanted is not None:
        body["temperature"] = wanted
    form = request.response_format
    if form is not None and form.schema is not None:
        body["output_config"] = {"format": {"type": "json_schema", "schema": dict(form.schema)}}
    if request.cache_key is not None:
        body["cache_control"] = {"type": "ephemeral"}
    return body


def _tool_choice(choice: str) -> dict[str, Any]:
    if choice.startswith("tool:"):
        return {"type": "tool", "name": choice.removeprefix("tool:")}
    return {"type": {"required": "any"}.get(choice, choice)}


def _messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Neighbours of the same side become one: all results of a turn's tools must stand in one message."""
    found: list[dict[str, Any]] = []
    for one in messages:
        if one.role == "system":
            continue
        role = "assistant" if one.role == "assistant" else "user"
        blocks = _blocks(one)
        if found and found[-1]["role"] == role:
            found[-1]["content"] += blocks
        elif blocks:
            found.append({"role": role, "content": blocks})
    return found or [{"role": "user", "content": "…"}]


def _blocks(one: Message) -> list[dict[str, Any]]:
    if one.role == "tool":
        return [{"type": "tool_result", "tool_use_id": one.tool_call_id, "content": one.content}]
    blocks: list[dict[str, Any]] = [_image(image.url) for image in one.images]
    if one.content:
        blocks.append({"type": "text", "text": one.content})
    for call in one.tool_calls:
        blocks.append({"type": "tool_use", "id": call.id, "name": call.name, "input": _object(call.arguments)})
    return blocks


def _image(url: str) -> dict[str, Any]:
    if url.startswith("data:"):
        mime, _, data = url.removeprefix("data:").partition(";base64,")
        return {"type": "image", "source": {"type": "base64", "media_type": mime, "data": data}}
    return {"type": "image", "source": {"type": "url", "url": url}}


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text or "{}")
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
