"""What a call uses of each engine: tokens, seconds, characters. Counted where an engine is really asked.

The one that answers is charged, not the ones that failed before it. An answer that is cut off before the
model could say what it took is estimated by its characters, and marked so: it was paid for all the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

from realtime.adapters.base import ChatDelta, ChatEnd, ChatRequest, SpeechChunk, SpeechRequest, TextDelta, ToolCallDelta
from realtime.adapters.routing import CHARACTERS_PER_TOKEN, Amount, Kind


@dataclass(frozen=True, slots=True)
class Spent:
    """One use of one engine. `engine`: `vendor/model`. `usd`: None when its price is not known."""

    kind: Kind
    engine: str
    amount: Amount
    usd: float | None
    estimated: bool = False


Output = TypeVar("Output", contravariant=True)
Tell: TypeAlias = Callable[[object, str, Amount, bool], None]
"""The engine, the session of the request, what was used, and whether that is an estimate."""


class Meter(Protocol[Output]):
    """Of one request at one engine: sees what comes out, and reports at the end if anything did."""

    def see(self, output: Output) -> None: ...

    def close(self) -> None: ...


class ChatMeter:
    def __init__(self, tell: Tell, engine: object, request: ChatRequest) -> None:
        self._tell = tell
        self._engine = engine
        self._request = request
        self._characters = 0
        self._seen = False
        self._end: ChatEnd | None = None

    def see(self, output: ChatDelta) -> None:
        self._seen = True
        match output:
            case TextDelta():
                self._characters += len(output.text)
            case ToolCallDelta():
                self._characters += len(output.arguments) + len(output.name or "")
            case ChatEnd():
                self._end = output

    def close(self) -> None:
        if not self._seen:
            return
        usage = self._end.usage if self._end is not None else None
        if usage is not None:
            amount = Amount(usage.input_tokens, usage.output_tokens, usage.cached_tokens)
            self._tell(self._engine, self._request.session, amount, False)
        else:
            amount = Amount(_tokens(_length(self._request)), _tokens(self._characters))
            self._tell(self._engine, self._request.session, amount, True)


class SpeechMeter:
    """A voice is paid for the text it was given, however much of it was heard."""

    def __init__(self, tell: Tell, engine: object, request: SpeechRequest) -> None:
        self._tell = tell
        self._engine = engine
        self._request = request
        self._seen = False

    def see(self, output: SpeechChunk) -> None:
        self._seen = True

    def close(self) -> None:
        if self._seen:
            self._tell(self._engine, self._request.session, Amount(characters=len(self._request.text)), False)


def _length(request: ChatRequest) -> int:
    messages = sum(
        len(message.content) + sum(len(call.arguments) + len(call.name) for call in message.tool_calls)
        for message in request.messages
    )
    return messages + sum(len(tool.name) + len(tool.description) + len(str(tool.parameters)) for tool in request.tools)


def _tokens(characters: int) -> int:
    return -(-characters // int(CHARACTERS_PER_TOKEN))
