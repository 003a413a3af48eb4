"""The adapter layer's protocols: one streaming primitive per capability.

Every primitive is an async context manager around a stream; leaving it closes the vendor's
connection at once, whatever was still under way. A live turn and an HTTP request use the same
stream. No method blocks the event loop; engines that block live in worker processes.

Audio is `media.audio.Pcm`: 16 kHz to recognisers, 24 kHz from voices. Errors are `EngineError`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

from media.audio import Pcm


class EngineError(Exception):
    """An engine could not do its work. `code` is a short snake_case name for logs and clients."""

    def __init__(self, message: str, *, code: str = "engine_error", engine: str = "", retryable: bool = True) -> None:
        super().__init__(message)
        self.code = code
        self.engine = engine
        self.retryable = retryable


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is, for the start screen and `/v1/ai/status`. `quality`: honest words, or None when unknown."""

    name: str
    kind: Literal["chat", "stt", "tts", "vad"]
    vendor: str
    model: str
    version: str | None = None
    licence: str | None = None
    quality: str | None = None


# --- speech to text ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SttOptions:
    language: str | None = None
    prompt: str | None = None
    session: str = ""
    """Engines that adapt to a speaker keep that state under this id, never across ids."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """`text` replaces every earlier partial of the same stream; exactly one has `final`."""

    text: str
    final: bool
    spoken: bool = True
    """False: `text` is a notice about the audio (no recogniser is installed), not what was said."""


class TranscriptStream(Protocol):
    """One utterance. `push` never blocks and is bounded (older audio wins; `EngineError` on overflow)."""

    def push(self, pcm: Pcm) -> None: ...

    def finish(self) -> None:
        """The utterance is over; the final transcript is due."""

    def __aiter__(self) -> AsyncIterator[Transcript]:
        """Partials as they change, then the final one, then the end. Raises `EngineError`."""


class SpeechToText(Protocol):
    @property
    def info(self) -> EngineInfo: ...

    def stream(self, options: SttOptions) -> AbstractAsyncContextManager[TranscriptStream]: ...

    async def start(self) -> None:
        """Load and warm up, before the first call. Idempotent."""

    async def close(self) -> None: ...


# --- chat -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: str
    """JSON text as the model wrote it; not validated."""


@dataclass(frozen=True, slots=True)
class ImagePart:
    url: str
    """An http(s) or data: URL."""


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant", "tool"]
    content: str = ""
    images: tuple[ImagePart, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    description: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """A JSON schema of type object."""


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | str
"""`auto`, `none`, `required`, or the name of one tool that must be called (prefixed `tool:`)."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice = "auto"
    max_tokens: int | None = None
    temperature: float | None = None
    session: str = ""


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """`id` and `name` come with the first delta of an `index`; `arguments` pieces are concatenated."""

    index: int
    arguments: str = ""
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ChatEnd:
    """Always the last of a stream."""

    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]
    usage: Usage | None = None


ChatDelta: TypeAlias = TextDelta | ToolCallDelta | ChatEnd


class ChatModel(Protocol):
    @property
    def info(self) -> EngineInfo: ...

    def stream(self, request: ChatRequest) -> AbstractAsyncContextManager[AsyncIterator[ChatDelta]]: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...


# --- text to speech ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """`text`: one clause or more of plain text, at most 4,096 characters."""

    text: str
    voice: str | None = None
    language: str | None = None
    speed: float = 1.0
    session: str = ""


@dataclass(frozen=True, slots=True)
class Word:
    """`start`, `end`: character offsets in the request's text; `at_ms`: from the start of its audio."""

    start: int
    end: int
    at_ms: float


@dataclass(frozen=True, slots=True)
class SpeechChunk:
    """24 kHz samples (may be empty) and the words that became known with them, in order."""

    pcm: Pcm
    words: tuple[Word, ...] = ()


class TextToSpeech(Protocol):
    @property
    def info(self) -> EngineInfo: ...

    @property
    def voices(self) -> Sequence[str]:
        """Names this engine knows; empty when it takes any."""

    def stream(self, request: SpeechRequest) -> AbstractAsyncContextManager[AsyncIterator[SpeechChunk]]: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...
