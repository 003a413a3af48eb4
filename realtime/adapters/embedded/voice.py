"""The embedded voice: espeak-ng or flite in a worker process, or tones where there is neither.

The first that is installed of: espeakng-loader (streams, real word times), system flite (somewhat more
natural, whole clauses, word times by length), system espeak-ng, tones. It must never load the GPL
library into the server, nor give out audio after the stream was left.
"""

from __future__ import annotations

import importlib.util
import shutil
import unicodedata
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace
from typing import Final

import numpy as np

from realtime.adapters.base import EngineError, EngineInfo, SpeechChunk, SpeechRequest, TextToSpeech, Word
from realtime.adapters.embedded import voices
from realtime.adapters.embedded.tone import ToneVoice
from realtime.adapters.embedded.worker import Worker, WorkerLimits
from realtime.adapters.words import speakable

ENGINES: Final = ("espeakng-loader", "flite", "espeak-ng", "tone")
"""In the order in which they are tried."""

MAX_TEXT: Final = 4096
"""Characters of one request."""

_ENGINE = "realtime.adapters.embedded.voice_engine:load"
_INFOS: Final = {
    "espeakng-loader": ("espeak-ng (espeakng-loader)", "GPL-3.0-or-later", "robotic but clear; word times are real"),
    "flite": ("flite", "BSD-like (CMU)", "dated but natural rhythm; English only; word times are estimated"),
    "espeak-ng": ("espeak-ng (system)", "GPL-3.0-or-later", "robotic but clear; word times are estimated"),
}
_FIRST_PICTOGRAM: Final = 0x2190
"""Arrows, dingbats and emoji from here on are not read out ("smiling face"); the degree sign is."""


def installed() -> list[str]:
    """The engines of `ENGINES` that are there, without importing any."""
    probes = {
        "espeakng-loader": importlib.util.find_spec("espeakng_loader") is not None,
        "flite": shutil.which("flite") is not None,
        "espeak-ng": shutil.which("espeak-ng") is not None,
    }
    return [name for name in ENGINES if probes.get(name, True)]


def voice(prefer: str | None = None, *, worker_limits: WorkerLimits | None = None) -> TextToSpeech:
    """`prefer`: one of `ENGINES`; default: the first that is installed."""
    there = installed()
    name = prefer or there[0]
    if name not in there:
        raise EngineError(f"the voice {name!r} is not installed, only {', '.join(there)}", code="not_installed")
    return ToneVoice() if name == "tone" else EmbeddedVoice(name, worker_limits=worker_limits)


def spoken(text: str) -> str:
    """`text` with what cannot be said as spaces, character for character, so that offsets stay true:
    control characters, lone surrogates, pictograms."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(" " if _unspoken(character) else character for character in text)


def _unspoken(character: str) -> bool:
    if character == "\n" or character.isalnum():
        return False
    category = unicodedata.category(character)
    return category in ("Cc", "Cs", "Co", "Cn", "Cf") or (category == "So" and ord(character) >= _FIRST_PICTOGRAM)


class EmbeddedVoice:
    """A `TextToSpeech` over one worker process. `pids`: its process."""

    def __init__(self, name: str, *, worker_limits: WorkerLimits | None = None) -> None:
        model, licence, quality = _INFOS[name]
        self._worker = Worker(_ENGINE, {"voice": name}, limits=worker_limits)
        self._info = EngineInfo(
            name="embedded", kind="tts", vendor="embedded", model=model, licence=licence, quality=f"demo: {quality}"
        )

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def voices(self) -> Sequence[str]:
        return voices.NAMES

    @property
    def pids(self) -> list[int]:
        return [self._worker.pid] if self._worker.pid is not None else []

    async def start(self) -> None:
        await self._worker.start()
        version = self._worker.described.get("version")
        self._info = replace(self._info, version=str(version) if version else None)

    async def close(self) -> None:
        await self._worker.close()

    def stream(self, request: SpeechRequest) -> AbstractAsyncContextManager[AsyncIterator[SpeechChunk]]:
        return self._stream(request)

    @asynccontextmanager
    async def _stream(self, request: SpeechRequest) -> AsyncIterator[AsyncIterator[SpeechChunk]]:
        voices.timbre(request.voice)
        if len(request.text) > MAX_TEXT:
            raise EngineError(
                f"a voice takes {MAX_TEXT} characters at once, not {len(request.text)}",
                code="text_too_long",
                engine="embedded",
                retryable=False,
            )
        async with aclosing(self._chunks(request)) as chunks:
            yield chunks

    async def _chunks(self, request: SpeechRequest) -> AsyncGenerator[SpeechChunk, None]:
        text = spoken(request.text)
        if not speakable(text):
            return
        head = {"voice": request.voice, "language": request.language, "speed": request.speed}
        stream = await self._worker.open(head, text.encode("utf-8"))
        try:
            while (item := await stream.receive()) is not None:
                words = tuple(Word(*word) for word in item.head.get("w", ()))
                yield SpeechChunk(np.frombuffer(item.body, np.int16), words)
        finally:
            stream.close()
