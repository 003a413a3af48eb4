"""Engines that answer at once, for measuring everything but engines: fixed text in, a tone out.

`InstantRecogniser` hears "hello" whatever was said, `InstantChat` answers with one sentence,
`InstantVoice` gives 5 s of a 440 Hz tone at -12 dBFS in 100 ms chunks. They must never be a default:
nothing here has to do with what the caller said, and their `info` says so.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Final

import numpy as np

from media.audio import RATE_OUT, Pcm
from realtime.adapters.base import (
    ChatDelta,
    ChatEnd,
    ChatRequest,
    EngineInfo,
    SpeechChunk,
    SpeechRequest,
    SttOptions,
    TextDelta,
    Transcript,
    Usage,
)
from realtime.adapters.words import interpolate, speakable

HEARD: Final = "hello"
ANSWER: Final = "This is the instant engine saying the same sentence every time."
"""One clause, because every clause becomes a tone of its own."""
TONE_S: Final = 5.0
CHUNK_S: Final = 0.1
TONE_HZ: Final = 440.0
_QUALITY: Final = "for measuring only: has nothing to do with what was said"


def tone() -> Pcm:
    """One chunk at -12 dBFS. It holds whole waves, so that chunks follow each other without a seam."""
    wave = np.sin(np.arange(int(RATE_OUT * CHUNK_S)) * (2 * math.pi * TONE_HZ / RATE_OUT))
    pcm: Pcm = (wave * 32767 * 10 ** (-12 / 20)).astype(np.int16)
    pcm.flags.writeable = False
    return pcm


class _Ready:
    """What all three share: there is nothing to load."""

    async def start(self) -> None:
        """Ready as it is."""

    async def close(self) -> None:
        """Holds nothing."""


class InstantStream:
    """A `TranscriptStream`."""

    def __init__(self) -> None:
        self._over = asyncio.Event()
        self._finished = False
        self._closed = False

    def push(self, pcm: Pcm) -> None:
        """Not listened to."""

    def finish(self) -> None:
        self._finished = True
        self._over.set()

    def close(self) -> None:
        self._closed = True
        self._over.set()

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        await self._over.wait()
        if self._finished and not self._closed:
            self._closed = True
            yield Transcript(HEARD, final=True)


class InstantRecogniser(_Ready):
    info = EngineInfo(name="instant", kind="stt", vendor="instant", model="instant", quality=_QUALITY)

    @asynccontextmanager
    async def stream(self, options: SttOptions) -> AsyncIterator[InstantStream]:
        stream = InstantStream()
        try:
            yield stream
        finally:
            stream.close()


class InstantChat(_Ready):
    info = EngineInfo(name="instant", kind="chat", vendor="instant", model="instant", quality=_QUALITY)

    @asynccontextmanager
    async def stream(self, request: ChatRequest) -> AsyncIterator[AsyncIterator[ChatDelta]]:
        async with aclosing(self._deltas(request)) as deltas:
            yield deltas

    async def _deltas(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        yield TextDelta(ANSWER)
        read = sum(len(message.content.split()) for message in request.messages)
        yield ChatEnd("stop", Usage(input_tokens=read, output_tokens=len(ANSWER.split())))


class InstantVoice(_Ready):
    info = EngineInfo(name="instant", kind="tts", vendor="instant", model="instant", quality=_QUALITY)

    def __init__(self) -> None:
        self._chunk = tone()

    @property
    def voices(self) -> Sequence[str]:
        return ()

    def stream(self, request: SpeechRequest) -> AbstractAsyncContextManager[AsyncIterator[SpeechChunk]]:
        return self._stream(request)

    @asynccontextmanager
    async def _stream(self, request: SpeechRequest) -> AsyncIterator[AsyncIterator[SpeechChunk]]:
        async with aclosing(self._chunks(request)) as chunks:
            yield chunks

    async def _chunks(self, request: SpeechRequest) -> AsyncGenerator[SpeechChunk, None]:
        if not speakable(request.text):
            return
        words = list(interpolate(request.text, TONE_S * 1000))
        for index in range(round(TONE_S / CHUNK_S)):
            until = (index + 1) * CHUNK_S * 1000
            count = next((place for place, word in enumerate(words) if word.at_ms >= until), len(words))
            yield SpeechChunk(self._chunk, tuple(words[:count]))
            del words[:count]
