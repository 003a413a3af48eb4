"""What a custom engine is asked and what it says, as bytes between the server and the engine's process.

Questions go out pickled, since the engine's process is the one that runs foreign code. Answers come back
as plain JSON and samples: whatever an engine yields is held to the contract of `realtime.adapters.base`
before it leaves its process, and nothing of it is ever unpickled in the server. Both ends share this
module; it does no I/O.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np

from media.audio import RATE_OUT
from realtime.adapters.base import (
    ChatDelta,
    ChatEnd,
    ChatRequest,
    EngineError,
    SpeechChunk,
    SpeechRequest,
    SttOptions,
    TextDelta,
    ToolCallDelta,
    Transcript,
    Usage,
    Word,
)

KINDS: Final = ("stt", "chat", "tts")
"""What a class may be; each is asked one kind of question."""

MAX_QUESTION: Final = 1 << 20
"""Bytes of one question: long histories fit, pictures may not."""

MAX_TEXT: Final = 100_000
"""Characters in one delta or transcript."""

MAX_WORDS: Final = 2000
"""Words of one chunk of speech."""

_FINISHED: Final = ("stop", "length", "tool_calls", "content_filter")
_PIECE: Final = RATE_OUT
"""Samples in one frame: a whole answer that comes at once is passed on second by second."""

Item = tuple[dict[str, Any], bytes]
"""Head and body of a frame."""


class NotTheContract(TypeError):
    """The engine yielded something else than its kind does; says what, and what was expected."""


def pack(question: ChatRequest | SpeechRequest | SttOptions) -> bytes:
    """Raises `EngineError` for a question that is too long."""
    data = pickle.dumps(question)
    if len(data) > MAX_QUESTION - 1000:
        raise EngineError("the request is too long for an engine of your own", code="request_too_long", retryable=False)
    return data


def unpack(data: bytes) -> Any:
    """In the engine's process only."""
    return pickle.loads(data)


# --- chat -------------------------------------------------------------------------------------


def pack_delta(delta: object) -> Item:
    """Raises `NotTheContract`."""
    match delta:
        case TextDelta():
            return {"t": "text"}, json.dumps(_text(delta.text, "TextDelta.text")).encode()
        case ToolCallDelta():
            fields: dict[str, Any] = {
                "index": _count(delta.index, "ToolCallDelta.index"),
                "arguments": _text(delta.arguments, "ToolCallDelta.arguments"),
                "id": None if delta.id is None else _text(delta.id, "ToolCallDelta.id"),
                "name": None if delta.name is None else _text(delta.name, "ToolCallDelta.name"),
            }
            return {"t": "tool"}, json.dumps(fields).encode()
        case ChatEnd():
            if delta.finish_reason not in _FINISHED:
                raise NotTheContract(f"ChatEnd.finish_reason is one of {', '.join(_FINISHED)}")
            return {"t": "end"}, json.dumps(_end(delta)).encode()
    raise NotTheContract(f"a chat model yields TextDelta, ToolCallDelta and ChatEnd, not {type(delta).__name__}")


def _end(end: ChatEnd) -> dict[str, Any]:
    usage = end.usage
    return {
        "finish_reason": end.finish_reason,
        "usage": None
        if usage is None
        else [
            _count(number, "a number of tokens")
            for number in (usage.input_tokens, usage.output_tokens, usage.cached_tokens)
        ],
        "dropped": [_text(name, "ChatEnd.dropped") for name in end.dropped],
    }


def unpack_delta(head: Mapping[str, Any], body: bytes) -> ChatDelta:
    value = json.loads(body)
    if head["t"] == "text":
        return TextDelta(value)
    if head["t"] == "tool":
        return ToolCallDelta(**value)
    usage = value["usage"]
    return ChatEnd(value["finish_reason"], None if usage is None else Usage(*usage), tuple(value["dropped"]))


# --- speech -----------------------------------------------------------------------------------


def pack_chunk(chunk: object) -> Iterator[Item]:
    """In pieces of a second at most, the words with the first. Raises `NotTheContract`."""
    if not isinstance(chunk, SpeechChunk):
        raise NotTheContract(f"a voice yields SpeechChunk, not {type(chunk).__name__}")
    pcm = chunk.pcm
    if not isinstance(pcm, np.ndarray) or pcm.dtype != np.int16 or pcm.ndim != 1:
        found = f"{pcm.dtype} of shape {pcm.shape}" if isinstance(pcm, np.ndarray) else type(pcm).__name__
        raise NotTheContract(f"SpeechChunk.pcm is a one-dimensional int16 array at 24 kHz, not {found}")
    if len(chunk.words) > MAX_WORDS:
        raise NotTheContract(f"more than {MAX_WORDS} words with one chunk")
    head = {"w": [_word(word) for word in chunk.words]} if chunk.words else {}
    if not len(pcm) and head:
        yield head, b""
    for start in range(0, len(pcm), _PIECE):
        yield head, pcm[start : start + _PIECE].tobytes()
        head = {}


def _word(word: object) -> list[float]:
    if not isinstance(word, Word) or not isinstance(word.at_ms, int | float):
        raise NotTheContract("SpeechChunk.words are Word(start, end, at_ms)")
    return [_count(word.start, "Word.start"), _count(word.end, "Word.end"), round(float(word.at_ms), 3)]


def unpack_chunk(head: Mapping[str, Any], body: bytes) -> SpeechChunk:
    words = tuple(Word(int(start), int(end), at_ms) for start, end, at_ms in head.get("w", ()))
    return SpeechChunk(np.frombuffer(body, np.int16), words)


# --- transcripts ------------------------------------------------------------------------------


def pack_transcript(transcript: object) -> Item:
    """Raises `NotTheContract`."""
    if not isinstance(transcript, Transcript):
        raise NotTheContract(f"a recogniser yields Transcript, not {type(transcript).__name__}")
    head = {"final": bool(transcript.final), "spoken": bool(transcript.spoken)}
    return head, json.dumps(_text(transcript.text, "Transcript.text")).encode()


def unpack_transcript(head: Mapping[str, Any], body: bytes) -> Transcript:
    return Transcript(json.loads(body), bool(head["final"]), bool(head["spoken"]))


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise NotTheContract(f"{what} is a string, not {type(value).__name__}")
    if len(value) > MAX_TEXT:
        raise NotTheContract(f"{what} has more than {MAX_TEXT} characters")
    return str(value)


def _count(value: object, what: str) -> int:
    if not isinstance(value, int | np.integer) or value < 0:
        raise NotTheContract(f"{what} is a whole number from 0, not {value!r:.40}")
    return int(value)
