"""One response: how a chat stream becomes items, events and clauses to speak. Sans-I/O.

    GENERATING --chat ended--> VOICING --speech finished--> CLOSED
        \\______________ stopped, failed ________________/

A response owns its output items and the order of its events (openai-realtime: `response.created`,
items and parts as they begin, deltas, and, whatever happens, their closing events and one
`response.done`). It never decides when to begin or to stop; the conversation does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from realtime.adapters.base import ChatEnd, ToolCallDelta, Usage, Word
from realtime.adapters.clauses import Clause, Clauses
from realtime.live import wire
from realtime.live.config import ResponseConfig
from realtime.live.effects import Effect, FinishSpeaking, Send, Speak
from realtime.live.items import History, Item, ItemStatus, Part
from realtime.live.wire import Json, new_id
from realtime.observe.turns import TurnRecord

MAX_TEXT = 100_000
"""Characters of one response, about two hours of speech; a model that never stops is stopped here."""


class Phase(Enum):
    GENERATING = "generating"
    VOICING = "voicing"
    CLOSED = "closed"


class Purpose(Enum):
    ANSWER = "answer"
    """To what the caller said."""
    REQUESTED = "requested"
    """The client's own `response.create`."""
    FIXED = "fixed"
    """A greeting, or the rest of what a false start cut off: the text is given, no model is asked."""


Status = Literal["completed", "cancelled", "failed", "incomplete"]


@dataclass(slots=True)
class Response:
    """`history` is where its output items go. `shared`: other calls say the same."""

    generation: int
    purpose: Purpose
    config: ResponseConfig
    history: History
    turn: TurnRecord
    shared: bool = False
    id: str = field(default_factory=lambda: new_id("resp"))
    phase: Phase = Phase.GENERATING
    outputs: list[Item] = field(default_factory=list)
    message: Item | None = None
    _message_index: int = 0
    _clauses: Clauses = field(default_factory=Clauses)
    _spoken: list[Clause] = field(default_factory=list)
    _clause_at_ms: dict[int, float] = field(default_factory=dict)
    _tools: dict[int, Item] = field(default_factory=dict)
    _ending: ChatEnd | None = None

    @property
    def part(self) -> Part | None:
        """The one content part of the message, once there is text."""
        return self.message.parts[0] if self.message else None

    @property
    def calls_tools(self) -> bool:
        return bool(self._tools)

    @property
    def tool_items(self) -> list[Item]:
        return list(self._tools.values())

    @property
    def speaks(self) -> bool:
        return self.config.modality == "audio"

    def open(self) -> list[Effect]:
        return [Send(wire.ResponseCreated(response=self.to_wire("in_progress")))]

    # --- what the chat model says -------------------------------------------------------------

    def add_text(self, text: str, *, complete: bool = False) -> list[Effect]:
        effects: list[Effect] = []
        if self.message is None:
            effects += self._begin_message()
        part = self.part
        assert part is not None
        part.text = (part.text or "") + text
        effects.append(Send(self._delta(text)))
        if self.speaks:
            effects += self._speak(self._clauses.push(text))
            if complete:
                effects += self._speak(self._clauses.finish())
        return effects

    @property
    def too_long(self) -> bool:
        return self.part is not None and len(self.part.text or "") > MAX_TEXT

    def _begin_message(self) -> list[Effect]:
        part = Part("output_audio" if self.speaks else "output_text", "")
        self.message = Item("message", role="assistant", status=ItemStatus.IN_PROGRESS)
        self._message_index = len(self.outputs)
        effects = self._begin(self.message)
        self.message.parts.append(part)
        empty: Json = {"type": "audio", "transcript": ""} if self.speaks else {"type": "text", "text": ""}
        added = wire.ContentPartEvent(type="response.content_part.added", part=empty, **self.part_ids())
        return [*effects, Send(added)]

    def _begin(self, item: Item) -> list[Effect]:
        previous = self.history.append(item)
        self.outputs.append(item)
        index = len(self.outputs) - 1
        added = wire.OutputItemEvent(
            type="response.output_item.added", response_id=self.id, output_index=index, item=item.to_wire()
        )
        if not self.config.in_conversation:
            return [Send(added)]
        return [Send(added), Send(wire.ItemAdded(item=item.to_wire(), previous_item_id=previous))]

    def add_tool_delta(self, delta: ToolCallDelta) -> list[Effect]:
        effects: list[Effect] = []
        item = self._tools.get(delta.index)
        if item is None:
            # Some vendors number the calls of each answer anew; here an id names one call for good.
            known = not delta.id or self.history.has_call(delta.id)
            item = Item(
                "function_call",
                status=ItemStatus.IN_PROGRESS,
                call_id=new_id("call") if known or delta.id is None else delta.id,
                name=delta.name or "",
            )
            self._tools[delta.index] = item
            effects += self._begin(item)
        if delta.arguments:
            item.arguments += delta.arguments
            effects.append(
                Send(
                    wire.ArgumentsDelta(
                        response_id=self.id,
                        item_id=item.id,
                        output_index=self.outputs.index(item),
                        call_id=item.call_id,
                        delta=delta.arguments,
                    )
                )
            )
        return effects

    def end_chat(self, ending: ChatEnd) -> list[Effect]:
        """The model is done. Tool calls are complete now; a spoken message still has to be voiced."""
        self.phase = Phase.VOICING
        self._ending = ending
        effects: list[Effect] = []
        if self.message is not None and self.speaks:
            effects += self._speak(self._clauses.finish())
            effects.append(FinishSpeaking(self.generation))
        for item in self._tools.values():
            item.arguments = item.arguments or "{}"
            item.status = ItemStatus.COMPLETED
            effects += self._end_tool(item)
        return effects

    @property
    def voiced(self) -> bool:
        """The chat has ended and there is nothing left to be spoken."""
        return self.phase is Phase.VOICING and (self.message is None or not self.speaks)

    def _speak(self, clauses: list[Clause]) -> list[Effect]:
        effects: list[Effect] = []
        config = self.config
        for clause in clauses:
            number = len(self._spoken)
            self._spoken.append(clause)
            effects.append(Speak(self.generation, number, clause.text, config.voice, config.speed, self.shared))
        return effects

    # --- what the voice made of it ------------------------------------------------------------

    def add_speech(self, clause: int, ms: float, words: tuple[Word, ...]) -> None:
        part = self.part
        if part is None or clause >= len(self._spoken):
            return
        begins = self._clause_at_ms.setdefault(clause, part.audio_ms)
        spoken = self._spoken[clause]
        part.audio_ms += ms
        part.add_speech(spoken.start, spoken.end, spoken.text, words, begins)

    # --- the end ------------------------------------------------------------------------------

    def close(self, status: Status, *, reason: str | None = None, error: Json | None = None) -> list[Effect]:
        """Closing events of everything that began, and `response.done`."""
        if status == "completed" and self._ending is not None:
            if self._ending.finish_reason == "length":
                status, reason = "incomplete", "max_output_tokens"
            elif self._ending.finish_reason == "content_filter":
                status, reason = "incomplete", "content_filter"
        self.phase = Phase.CLOSED
        self.turn.status = status
        ended = ItemStatus.COMPLETED if status == "completed" else ItemStatus.INCOMPLETE
        effects: list[Effect] = []
        if self.message is not None:
            self.message.status = ended
            effects += self._end_message()
        for item in self._tools.values():
            if item.status is ItemStatus.IN_PROGRESS:
                item.status = ItemStatus.INCOMPLETE
                effects += self._end_tool(item)
        details: Json | None = None
        if status != "completed":
            details = {"type": status}
            if reason:
                details["reason"] = reason
            if error:
                details["error"] = error
        effects.append(Send(wire.ResponseDone(response=self.to_wire(status, details))))
        return effects

    def _end_message(self) -> list[Effect]:
        assert self.message is not None
        part = self.message.parts[0]
        text = part.text or ""
        ids = self.part_ids()
        effects: list[Effect] = []
        if self.speaks:
            done: Json = {"type": "audio", "transcript": text}
            effects.append(Send(wire.PartDone(type="response.output_audio.done", **ids)))
            effects.append(Send(wire.PartDone(type="response.output_audio_transcript.done", transcript=text, **ids)))
        else:
            done = {"type": "text", "text": text}
            effects.append(Send(wire.PartDone(type="response.output_text.done", text=text, **ids)))
        effects.append(Send(wire.ContentPartEvent(type="response.content_part.done", part=done, **ids)))
        return effects + self._end_item(self.message)

    def _end_tool(self, item: Item) -> list[Effect]:
        done = wire.ArgumentsDone(
            response_id=self.id,
            item_id=item.id,
            output_index=self.outputs.index(item),
            call_id=item.call_id,
            name=item.name,
            arguments=item.arguments,
        )
        return [Send(done), *self._end_item(item)]

    def _end_item(self, item: Item) -> list[Effect]:
        done = wire.OutputItemEvent(
            type="response.output_item.done",
            response_id=self.id,
            output_index=self.outputs.index(item),
            item=item.to_wire(),
        )
        if not self.config.in_conversation:
            return [Send(done)]
        predecessor = self.history.predecessor(item.id)
        return [Send(done), Send(wire.ItemDone(item=item.to_wire(), previous_item_id=predecessor))]

    # --- wire shapes --------------------------------------------------------------------------

    def part_ids(self) -> dict[str, Any]:
        """What names the message's content part in events."""
        assert self.message is not None
        return {
            "response_id": self.id,
            "item_id": self.message.id,
            "output_index": self._message_index,
            "content_index": 0,
        }

    def _delta(self, text: str) -> wire.DeltaEvent:
        if self.speaks:
            return wire.DeltaEvent(type="response.output_audio_transcript.delta", delta=text, **self.part_ids())
        return wire.DeltaEvent(type="response.output_text.delta", delta=text, **self.part_ids())

    def to_wire(self, status: Status | Literal["in_progress"], details: Json | None = None) -> Json:
        return {
            "id": self.id,
            "object": "realtime.response",
            "status": status,
            "status_details": details,
            "output": [item.to_wire() for item in self.outputs] if status != "in_progress" else [],
            "conversation_id": "conv_default" if self.config.in_conversation else None,
            "output_modalities": [self.config.modality],
            "audio": {"output": {"format": self.config.output_format, "voice": self.config.voice}},
            "max_output_tokens": self.config.max_output_tokens or "inf",
            "metadata": self.config.metadata,
            "usage": None if status == "in_progress" else _usage(self._ending.usage if self._ending else None),
        }


def _usage(usage: Usage | None) -> Json | None:
    if usage is None:
        return None
    cached = {"text_tokens": usage.cached_tokens, "audio_tokens": 0, "image_tokens": 0}
    return {
        "total_tokens": usage.input_tokens + usage.output_tokens,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "input_token_details": {
            "text_tokens": usage.input_tokens,
            "audio_tokens": 0,
            "image_tokens": 0,
            "cached_tokens": usage.cached_tokens,
            "cached_tokens_details": cached,
        },
        "output_token_details": {"text_tokens": usage.output_tokens, "audio_tokens": 0},
    }
