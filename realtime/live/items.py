"""What was said and what was heard: the items of one conversation, in order.

An assistant's spoken part remembers, for every word, when in its audio the word is spoken, so that a
cut at any millisecond leaves exactly the words that were heard. Nothing here knows of time or of
the wire's events; `to_wire` gives OpenAI Realtime's item shapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal

from realtime.adapters.base import ImagePart, Message, ToolCall, Word
from realtime.live import wire
from realtime.live.wire import Json, new_id

MAX_ITEMS = 2000
"""A client cannot add more than this; what the call itself adds pushes out the oldest. Hours of quick turns."""


class ItemStatus(Enum):
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"


PartKind = Literal["input_text", "input_audio", "input_image", "output_text", "output_audio"]


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """A word of a part's text: character offsets, and milliseconds from the start of the part's audio."""

    start: int
    end: int
    at_ms: float


@dataclass(slots=True)
class Part:
    """One content part. For `output_audio`, `text` is the transcript."""

    kind: PartKind
    text: str | None = None
    image_url: str | None = None
    note: str = ""
    """What the chat model reads where there is no text."""
    audio_ms: float = 0.0
    """How much audio was made for this part (output) or heard (input)."""
    words: list[SpokenWord] = field(default_factory=list)

    def add_speech(self, start: int, end: int, clause: str, words: Iterable[Word], at_ms: float) -> None:
        """Words that became known for the clause spoken from `text[start:end]`.

        `clause` is what was really spoken (markup removed), `words` index into it, `at_ms` is where the
        clause's audio begins in the part's audio.
        """
        raw = self.text or ""
        cursor = max(start, self.words[-1].end if self.words else 0)
        for word in words:
            spoken = clause[word.start : word.end]
            found = raw.find(spoken, cursor, end) if spoken else -1
            if found < 0:  # respelt by the engine or hidden by markup: keep its proportional place
                scale = (end - start) / max(1, len(clause))
                found = max(cursor, min(end, start + round(word.start * scale)))
                stop = max(found, min(end, start + round(word.end * scale)))
            else:
                stop = found + len(spoken)
            cursor = stop
            self.words.append(SpokenWord(found, stop, at_ms + word.at_ms))

    def cut(self, heard_ms: float) -> None:
        """Keep what was heard after `heard_ms` of the part's audio, and nothing else."""
        end = self.heard_chars(heard_ms)
        self.text = (self.text or "")[:end]
        self.words = [word for word in self.words if word.end <= end]
        self.audio_ms = min(self.audio_ms, heard_ms)

    def heard_chars(self, heard_ms: float) -> int:
        """How many characters of `text` had been spoken after `heard_ms` of audio.

        A word counts when at least half of it was heard; punctuation that follows it counts with it.
        """
        if heard_ms <= 0:
            return 0
        text = self.text or ""
        end = 0
        for position, word in enumerate(self.words):
            following = self.words[position + 1].at_ms if position + 1 < len(self.words) else self.audio_ms
            if heard_ms < (word.at_ms + max(word.at_ms, following)) / 2 or heard_ms <= word.at_ms:
                break
            end = word.end
            while end < len(text) and not (text[end].isalnum() or text[end].isspace()):
                end += 1
        return end

    def to_wire(self) -> Json:
        match self.kind:
            case "input_text" | "output_text":
                return {"type": self.kind, "text": self.text or ""}
            case "input_audio" | "output_audio":
                # agents-realtime throws where the key is missing; null means "not known yet".
                return {"type": self.kind, "transcript": self.text}
            case "input_image":
                return {"type": self.kind, "image_url": self.image_url or ""}


@dataclass(slots=True)
class Item:
    """One entry of the history. `role` for messages; `call_id`, `name`, `arguments`, `output` for tools."""

    type: Literal["message", "function_call", "function_call_output"]
    id: str = field(default_factory=lambda: new_id("item"))
    role: Literal["system", "user", "assistant"] | None = None
    status: ItemStatus = ItemStatus.COMPLETED
    parts: list[Part] = field(default_factory=list)
    call_id: str = ""
    name: str = ""
    arguments: str = ""
    output: str = ""
    fresh: bool = False
    """What came before this is not read by the chat model: this says what there is to know of it."""

    @classmethod
    def from_param(
        cls,
        param: wire.MessageItem | wire.FunctionCallItem | wire.FunctionCallOutputItem,
        *,
        sees: bool = True,
        where: str = "item",
    ) -> Item:
        """The item a client asked for; its id is kept.

        `sees`: the chat model takes images; else one raises `WireError`. `where`: the item's own field.
        """
        item_id = param.id or new_id("item")
        if isinstance(param, wire.MessageItem):
            for place, part in enumerate(param.content):
                if isinstance(part, wire.InputImage) and not sees:
                    field = f"{where}.content[{place}]"
                    raise wire.WireError("The chat model sees no images.", code="unsupported_value", param=field)
            return cls("message", item_id, role=param.role, parts=[_part(part) for part in param.content])
        if isinstance(param, wire.FunctionCallItem):
            return cls(
                "function_call",
                item_id,
                call_id=param.call_id or new_id("call"),
                name=param.name,
                arguments=param.arguments,
            )
        return cls("function_call_output", item_id, call_id=param.call_id, output=param.output)

    @property
    def text(self) -> str:
        """All text and transcripts of the item."""
        return " ".join(part.text for part in self.parts if part.text)

    def to_wire(self) -> Json:
        base: dict[str, Any] = {
            "id": self.id,
            "object": "realtime.item",
            "type": self.type,
            "status": self.status.value,
        }
        if self.type == "message":
            return base | {"role": self.role, "content": [part.to_wire() for part in self.parts]}
        if self.type == "function_call":
            return base | {"call_id": self.call_id, "name": self.name, "arguments": self.arguments}
        return base | {"call_id": self.call_id, "output": self.output}


def _part(content: wire.ContentPart) -> Part:
    match content:
        case wire.InputText():
            return Part("input_text", content.text)
        case wire.InputAudio():
            return Part("input_audio", content.transcript)
        case wire.InputImage():
            return Part("input_image", image_url=content.image_url)
        case wire.OutputText():
            return Part("output_text", content.text)
        case wire.OutputAudio():
            return Part("output_audio", content.transcript)


class HistoryError(Exception):
    """An item that does not exist, exists already, or would make the history too long."""

    def __init__(self, message: str, *, code: str, param: str) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


class History:
    """The items in order, with their true predecessors."""

    def __init__(self) -> None:
        self._items: list[Item] = []

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def last_id(self) -> str | None:
        return self._items[-1].id if self._items else None

    def get(self, item_id: str) -> Item | None:
        return next((item for item in reversed(self._items) if item.id == item_id), None)

    def has_call(self, call_id: str) -> bool:
        return any(item.call_id == call_id for item in self._items)

    def require(self, item_id: str) -> Item:
        item = self.get(item_id)
        if item is None:
            raise HistoryError(f"There is no item '{item_id}'.", code="item_not_found", param="item_id")
        return item

    def insert(self, item: Item, after: str | None = None) -> str | None:
        """Put `item` after the item `after` (`root`: first; None: last). Gives its predecessor's id."""
        if len(self._items) >= MAX_ITEMS:
            raise HistoryError(f"A conversation holds at most {MAX_ITEMS} items.", code="too_many_items", param="item")
        if self.get(item.id) is not None:
            raise HistoryError(f"There is an item '{item.id}' already.", code="item_exists", param="item.id")
        if after == "root":
            self._items.insert(0, item)
        elif after is None:
            self._items.append(item)
        else:
            index = self._index(after)
            if index is None:
                raise HistoryError(
                    f"There is no item '{after}' to put it after.", code="item_not_found", param="previous_item_id"
                )
            self._items.insert(index + 1, item)
        return self.predecessor(item.id)

    def append(self, item: Item) -> str | None:
        """Put a new item last, as the course of the call demands: the oldest gives way when there are too many."""
        if len(self._items) >= MAX_ITEMS:
            self._items.pop(0)
        return self.insert(item)

    def delete(self, item_id: str) -> None:
        self._items.remove(self.require(item_id))

    def predecessor(self, item_id: str) -> str | None:
        index = self._index(item_id)
        return self._items[index - 1].id if index else None

    def _index(self, item_id: str) -> int | None:
        return next((index for index, item in enumerate(self._items) if item.id == item_id), None)

    def messages(self, instructions: str, tokens: tuple[int, float] | None = None) -> list[Message]:
        """The history as a chat model reads it: what was heard, not what was meant to be said.

        `tokens`: (limit, share): beyond `limit` estimated tokens only the newest `share` of it is read.
        """
        items = self._newest(tokens)
        result = [Message("system", instructions)] if instructions else []
        outputs = {item.call_id: item.output for item in items if item.type == "function_call_output"}
        calls: list[ToolCall] = []

        def flush_calls() -> None:
            if calls:
                result.append(Message("assistant", tool_calls=tuple(calls)))
                result.extend(Message("tool", outputs[call.id], tool_call_id=call.id) for call in calls)
                calls.clear()

        for item in items:
            # Vendors refuse a call without its result, and a result away from its call.
            if item.type == "function_call" and item.call_id in outputs:
                calls.append(ToolCall(item.call_id, item.name, item.arguments))
            elif item.type == "message" and item.role is not None:
                flush_calls()
                images = tuple(ImagePart(part.image_url) for part in item.parts if part.image_url)
                text = item.text or " ".join(part.note for part in item.parts if part.note)
                if text or images:
                    result.append(Message(item.role, text, images))
        flush_calls()
        return result

    def _newest(self, tokens: tuple[int, float] | None) -> list[Item]:
        first = next((index for index in reversed(range(len(self._items))) if self._items[index].fresh), 0)
        items = self._items[first:]
        sizes = [_estimated_tokens(item) for item in items]
        if tokens is None or sum(sizes) <= tokens[0]:
            return items
        room = tokens[0] * tokens[1]
        kept = len(items)
        while kept and room >= sizes[kept - 1]:
            kept -= 1
            room -= sizes[kept]
        return items[kept:]


def _estimated_tokens(item: Item) -> int:
    """Four characters a token, as for English, and some for the frame; an image as a vendor's high-detail tile."""
    images = sum(1 for part in item.parts if part.image_url)
    return 8 + (len(item.text) + len(item.arguments) + len(item.output)) // 4 + 765 * images
