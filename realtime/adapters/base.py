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
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from media.audio import Pcm
from media.prepared import Source


class EngineError(Exception):
    """An engine could not do its work. `code` is a short snake_case name for logs and clients."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "engine_error",
        engine: str = "",
        retryable: bool = True,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.engine = engine
        self.retryable = retryable
        self.retry_after = retry_after
        """Seconds the vendor asked to be left alone for, when it said so."""


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine is, for the start screen and `/v1/ai/status`. `quality`: honest words, or None when unknown."""

    name: str
    kind: Literal["chat", "stt", "tts", "vad", "embed", "image"]
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
class ResponseFormat:
    """`json_object`: any JSON object; `json_schema`: one that fits `schema`."""

    type: Literal["json_object", "json_schema"]
    schema: Mapping[str, Any] | None = None
    name: str = "answer"
    strict: bool = False


@dataclass(frozen=True, slots=True)
class ChatRequest:
    messages: Sequence[Message]
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice = "auto"
    max_tokens: int | None = None
    temperature: float | None = None
    session: str = ""
    response_format: ResponseFormat | None = None
    cache_key: str | None = None
    """Requests with the same key share their beginning: the vendor may keep its work on it."""
    exact: bool = False
    """A parameter that the model does not take is an error, and not left out."""
    gather_s: float = 0.0
    """Seconds from one look at the wire to the next, once tokens come: those that come faster are read together."""


@dataclass(frozen=True, slots=True)
class TextDelta:
    """`complete`: a voice may begin with it; nothing belongs to its last sentence that comes later."""

    text: str
    complete: bool = False


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
    dropped: tuple[str, ...] = ()
    """Parameters of the request that the model did not take."""


ChatDelta: TypeAlias = TextDelta | ToolCallDelta | ChatEnd


class ChatModel(Protocol):
    @property
    def info(self) -> EngineInfo: ...

    def stream(self, request: ChatRequest) -> AbstractAsyncContextManager[AsyncIterator[ChatDelta]]: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...


ChatAnswer: TypeAlias = Sequence[ChatDelta] | EngineError
"""A whole answer of a batch, ending in `ChatEnd`, or why there is none."""


class ChatBatches(Protocol):
    """A vendor's own interface for many requests at a lower price, answered within a day."""

    @property
    def max_bytes(self) -> int:
        """Of one batch."""

    @property
    def max_requests(self) -> int: ...

    async def submit(self, requests: Mapping[str, ChatRequest]) -> str:
        """Sends the requests, each under an id of `[A-Za-z0-9_-]{1,64}`; what the vendor calls the batch."""

    async def answers(self, batch: str) -> Mapping[str, ChatAnswer] | None:
        """By the ids of the requests; None while it works. Who is missing was not done (cancelled, expired)."""

    async def cancel(self, batch: str) -> None: ...

    async def discard(self, batch: str) -> None:
        """Removes what the vendor keeps of it. Only for one that is over."""


@runtime_checkable
class Batching(Protocol):
    """A `ChatModel` that may have `ChatBatches`."""

    @property
    def batches(self) -> ChatBatches | None: ...


# --- text to speech ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpeechRequest:
    """`text`: one clause or more of plain text, at most 4,096 characters."""

    text: str
    voice: str | None = None
    language: str | None = None
    speed: float = 1.0
    session: str = ""
    shared: bool = False
    """Other calls say the same: it may be kept for them."""


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
    source: Source | None = None
    """What the samples are of, when they are kept for other calls: whole frames."""


class TextToSpeech(Protocol):
    @property
    def info(self) -> EngineInfo: ...

    @property
    def voices(self) -> Sequence[str]:
        """Names this engine knows; empty when it takes any."""

    def stream(self, request: SpeechRequest) -> AbstractAsyncContextManager[AsyncIterator[SpeechChunk]]: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...


# --- embeddings -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Embeddings:
    """One vector for each text, in order; `input_tokens` is None when the engine does not say."""

    vectors: Sequence[Sequence[float]]
    input_tokens: int | None = None


class Embedder(Protocol):
    @property
    def info(self) -> EngineInfo: ...

    def embed(
        self, texts: Sequence[str], *, dimensions: int | None = None
    ) -> AbstractAsyncContextManager[AsyncIterator[Embeddings]]:
        """One `Embeddings`. Raises `EngineError`, also for `dimensions` that the model does not have."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...


# --- images -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Image:
    data: bytes
    mime: str


class ImageGenerator(Protocol):
    @property
    def info(self) -> EngineInfo: ...

    def generate(
        self, prompt: str, *, size: tuple[int, int] | None = None, count: int = 1
    ) -> AbstractAsyncContextManager[AsyncIterator[Image]]:
        """`count` images as they are ready; `size` is width and height, None for the engine's own choice."""

    async def start(self) -> None: ...

    async def close(self) -> None: ...


# --- whole recordings -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpokenWord:
    """Seconds from the start of the recording."""

    text: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech in seconds from the start of the recording."""

    text: str
    start: float
    end: float
    words: tuple[SpokenWord, ...] = ()
    speaker: str | None = None


@dataclass(frozen=True, slots=True)
class Transcription:
    text: str
    language: str | None = None
    segments: tuple[Segment, ...] = ()


@runtime_checkable
class RecordingTranscriber(Protocol):
    """A recogniser that takes whole recordings, and knows more of them than its live stream tells."""

    def transcription(self, pcm: Pcm, options: SttOptions) -> AbstractAsyncContextManager[AsyncIterator[Transcription]]:
        """One `Transcription` of 16 kHz samples. Raises `EngineError`."""
