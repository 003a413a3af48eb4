"""A voice that only beeps: one short tone a word, for installations without any speech engine.

It keeps calls, barge-in and word times working, and says in its `info` that it is no voice.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Final

import numpy as np

from media.audio import RATE_OUT, Pcm
from realtime.adapters.base import EngineInfo, SpeechChunk, SpeechRequest, Word
from realtime.adapters.embedded import voices
from realtime.adapters.words import spans

_MS_PER_CHARACTER: Final = 65.0
_PAUSE_MS: Final = 60.0
_LONGEST_MS: Final = 800.0
"""Of one word's tone, whatever its length: a chunk stays small."""
_AMPLITUDE: Final = 6000
_RAMP: Final = RATE_OUT // 200
"""Samples over which a tone rises and falls: 5 ms, so that it does not click."""


class ToneVoice:
    """A `TextToSpeech` in this process: arithmetic only, a chunk a word."""

    info = EngineInfo(
        name="embedded",
        kind="tts",
        vendor="embedded",
        model="tone",
        quality="no voice is installed, words are beeps: pip install 'infrai-realtime[local]', or set [live] tts",
    )

    @property
    def voices(self) -> Sequence[str]:
        return voices.NAMES

    @property
    def pids(self) -> list[int]:
        return []

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to end."""

    def stream(self, request: SpeechRequest) -> AbstractAsyncContextManager[AsyncIterator[SpeechChunk]]:
        return self._stream(request)

    @asynccontextmanager
    async def _stream(self, request: SpeechRequest) -> AsyncIterator[AsyncIterator[SpeechChunk]]:
        pitch = voices.timbre(request.voice).pitch
        async with aclosing(self._chunks(request, 220.0 + 4.0 * pitch)) as chunks:
            yield chunks

    async def _chunks(self, request: SpeechRequest, hertz: float) -> AsyncGenerator[SpeechChunk, None]:
        speed = min(max(request.speed, 0.25), 1.5)
        samples = 0
        for start, end in spans(request.text):
            length_ms = min((end - start) * _MS_PER_CHARACTER, _LONGEST_MS) / speed
            word = Word(start, end, samples * 1000 / RATE_OUT)
            pcm = _beep(hertz, length_ms, _PAUSE_MS / speed)
            samples += len(pcm)
            await asyncio.sleep(0)
            yield SpeechChunk(pcm, (word,))


def _beep(hertz: float, length_ms: float, pause_ms: float) -> Pcm:
    count = int(RATE_OUT * length_ms / 1000)
    wave = _AMPLITUDE * np.sin(np.arange(count) * (2 * math.pi * hertz / RATE_OUT))
    ramp = np.linspace(0.0, 1.0, min(_RAMP, count // 2), endpoint=False)
    wave[: len(ramp)] *= ramp
    wave[count - len(ramp) :] *= ramp[::-1]
    pcm = np.zeros(count + int(RATE_OUT * pause_ms / 1000), np.int16)
    pcm[:count] = wave.astype(np.int16)
    return pcm
