"""What goes over the wire to an OpenAI-compatible chat address and what comes back, without I/O.

`chat_body` writes a request; `Lines` cuts the answer's bytes into lines; `ChatEvents` turns the data
of its server-sent events into deltas. Vendors' dialects are tolerated where the meaning is clear;
what is not understood raises `WireError`, and nothing is ever guessed into an answer.

Wire format: OpenAI's chat completions with `stream: true`; one `data:` line an event.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from realtime.adapters.base import (
    ChatDelta,
    ChatEnd,
    ChatRequest,
    Message,
    Segment,
    SpokenWord,
    TextDelta,
    ToolCallDelta,
    Transcription,
    Usage,
)

MAX_LINE = 1 << 20
"""Bytes: a token's event has some hundred; a tool call sent whole may have many more."""

MAX_TOOL_CALLS = 64

DONE = b"[DONE]"

FinishReason = Literal["stop", "length", "tool_calls", "content_filter"]

_FINISH: dict[str, FinishReason] = {
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "tool_use": "tool_calls",
    "content_filter": "content_filter",
}
"""Everything else (`stop`, `eos`, `end_turn`, …) is an ordinary end."""


class WireError(Exception):
    """The answer is not what the API promises. `code` is the vendor's own, when it reported an error."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class Lines:
    """Bytes in, whole lines out, without their ends."""

    def __init__(self, limit: int = MAX_LINE) -> None:
        self._limit = limit
        self._parts: list[bytes] = []
        self._held = 0

    def push(self, data: bytes) -> list[bytes]:
        first, *others = data.split(b"\n")
        self._hold(first)
        lines: list[bytes] = []
        for part in others:
            lines.append(self._release())
            self._hold(part)
        return lines

    def finish(self) -> list[bytes]:
        last = self._release()
        return [last] if last else []

    def _hold(self, part: bytes) -> None:
        self._held += len(part)
        if self._held > self._limit:
            raise WireError(f"a line is longer than {self._limit} bytes")
        self._parts.append(part)

    def _release(self) -> bytes:
        line = b"".join(self._parts)
        self._parts, self._held = [], 0
        return line.rstrip(b"\r")


@dataclass(slots=True)
class _Call:
    """A tool call whose first delta waits until its name is known."""

    index: int
    id: str = ""
    named: bool = False
    held: str = ""


class ChatEvents:
    """Feed it lines; it returns deltas. `finished` once the reason is known, `done` after the end mark."""

    def __init__(self) -> None:
        self.done = False
        self._reason: str | None = None
        self._usage: Usage | None = None
        self._calls: dict[int, _Call] = {}

    @property
    def finished(self) -> bool:
        return self._reason is not None

    def line(self, line: bytes) -> list[ChatDelta]:
        if not line.startswith(b"data:"):
            return []
        data = line[5:].strip()
        if not data:
            return []
        if data == DONE:
            self.done = True
            return []
        return self.event(_object(data))

    def event(self, event: Mapping[str, Any]) -> list[ChatDelta]:
        """One chunk of a stream, or a whole answer from a server that does not stream."""
        error = event.get("error")
        if error:
            raise _reported(error)
        usage = event.get("usage")
        if isinstance(usage, dict):
            self._usage = _usage(usage)
        choices = event.get("choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            return []
        choice = choices[0]
        deltas: list[ChatDelta] = []
        delta = choice.get("delta") or choice.get("message")
        if isinstance(delta, dict) and not self.finished:
            text = delta.get("content") or delta.get("refusal")
            if isinstance(text, str) and text:
                deltas.append(TextDelta(text))
            calls = delta.get("tool_calls")
            if isinstance(calls, list):
                for position, call in enumerate(calls):
                    deltas += self._tool_call(call, position, len(calls))
        reason = choice.get("finish_reason")
        if isinstance(reason, str) and reason:
            self._reason = reason
        return deltas

    def end(self) -> ChatEnd:
        if not self.finished and not self.done:
            raise WireError("the answer stopped in the middle")
        if any(not call.named for call in self._calls.values()):
            raise WireError("a tool call without a name")
        reason = _FINISH.get(self._reason or "stop", "stop")
        if self._calls and reason == "stop":
            # Several servers report `stop` although the model called a tool.
            reason = "tool_calls"
        return ChatEnd(reason, self._usage)

    def _tool_call(self, call: object, position: int, together: int) -> list[ChatDelta]:
        if not isinstance(call, dict):
            raise WireError("a tool call is not an object")
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        state = self._call(call, position, together)
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            arguments = orjson.dumps(arguments).decode()
        text = arguments if isinstance(arguments, str) else ""
        if state.named:
            return [ToolCallDelta(state.index, text)] if text else []
        name = function.get("name")
        if not isinstance(name, str) or not name:
            state.held += text
            return []
        state.named = True
        return [ToolCallDelta(state.index, state.held + text, state.id, name)]

    def _call(self, call: Mapping[str, Any], position: int, together: int) -> _Call:
        """The call this delta belongs to. Some servers leave out `index`; then a new `id` begins a call."""
        index, id_ = call.get("index"), call.get("id")
        if not isinstance(index, int) or isinstance(index, bool) or index < 0:
            known = next((c.index for c in self._calls.values() if id_ and c.id == id_), None)
            if known is not None:
                index = known
            elif id_ or together > 1 or not self._calls:
                index = max(self._calls, default=-1) + 1
            else:
                index = max(self._calls)
        state = self._calls.get(index)
        if state is None:
            if len(self._calls) >= MAX_TOOL_CALLS:
                raise WireError(f"more than {MAX_TOOL_CALLS} tool calls")
            state = self._calls[index] = _Call(index, "")
        if not state.id:
            state.id = id_ if isinstance(id_, str) and id_ else f"call_{uuid.uuid4().hex[:24]}"
        return state


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        raise WireError("an event is not JSON") from None
    if not isinstance(value, dict):
        raise WireError("an event is not an object")
    return value


def parse_object(data: bytes) -> dict[str, Any]:
    """A JSON object as the body of an answer; `WireError` for anything else, or an error it reports."""
    value = _object(data)
    if value.get("error"):
        raise _reported(value["error"])
    return value


def transcription(answer: Mapping[str, Any]) -> Transcription:
    """An answer of `/audio/transcriptions`: `json`, or `verbose_json` with segments and words."""
    text = answer.get("text")
    if not isinstance(text, str):
        raise WireError("a transcription without text")
    words = [found for found in map(_spoken, _dicts(answer.get("words"))) if found is not None]
    segments = []
    for item in _dicts(answer.get("segments")):
        start, end, said = _time(item.get("start")), _time(item.get("end")), item.get("text")
        if start is None or end is None or not isinstance(said, str):
            continue
        own = [found for found in map(_spoken, _dicts(item.get("words"))) if found is not None]
        own = own or [word for word in words if start <= (word.start + word.end) / 2 < end]
        speaker = item.get("speaker")
        segments.append(Segment(said.strip(), start, end, tuple(own), speaker if isinstance(speaker, str) else None))
    language = answer.get("language")
    return Transcription(text.strip(), language if isinstance(language, str) else None, tuple(segments))


def _dicts(value: object) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _spoken(item: Mapping[str, Any]) -> SpokenWord | None:
    word, start, end = item.get("word"), _time(item.get("start")), _time(item.get("end"))
    if not isinstance(word, str) or start is None or end is None:
        return None
    return SpokenWord(word.strip(), start, end)


def _time(value: object) -> float | None:
    """Seconds."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e6:
        return float(value)
    return None


def _reported(error: object) -> WireError:
    if isinstance(error, dict):
        code = error.get("code") or error.get("type")
        return WireError(str(error.get("message") or "the vendor reported an error"), str(code or ""))
    return WireError(str(error))


def _usage(usage: Mapping[str, Any]) -> Usage:
    def count(value: object) -> int:
        return value if isinstance(value, int) and value >= 0 else 0

    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Usage(count(usage.get("prompt_tokens")), count(usage.get("completion_tokens")), count(cached))


# --- requests -----------------------------------------------------------------------------------


def chat_body(request: ChatRequest, model: str, temperature: float | None) -> dict[str, Any]:
    """The JSON body. `temperature` is the model's own, for a request that names none."""
    body: dict[str, Any] = {
        "model": model,
        "messages": [_message(message) for message in request.messages],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.tools:
        body["tools"] = [
            {
                "type": "function",
                "function": {
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": dict(tool.parameters) or {"type": "object", "properties": {}},
                },
            }
            for tool in request.tools
        ]
        if request.tool_choice.startswith("tool:"):
            body["tool_choice"] = {"type": "function", "function": {"name": request.tool_choice[5:]}}
        elif request.tool_choice != "auto":
            body["tool_choice"] = request.tool_choice
    wanted = temperature if request.temperature is None else request.temperature
    if wanted is not None:
        body["temperature"] = wanted
    if request.max_tokens is not None:
        body["max_tokens"] = request.max_tokens
    form = request.response_format
    if form is not None:
        body["response_format"] = {"type": form.type}
        if form.schema is not None:
            schema = {"name": form.name, "schema": dict(form.schema), "strict": form.strict}
            body["response_format"]["json_schema"] = schema
    return body


def _message(message: Message) -> dict[str, Any]:
    content: str | Sequence[Mapping[str, Any]] | None = message.content
    if message.images:
        text = [{"type": "text", "text": message.content}] if message.content else []
        content = [*text, *({"type": "image_url", "image_url": {"url": image.url}} for image in message.images)]
    elif message.tool_calls and not message.content:
        content = None
    written: dict[str, Any] = {"role": message.role, "content": content}
    if message.tool_calls:
        written["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        written["tool_call_id"] = message.tool_call_id
    return written
