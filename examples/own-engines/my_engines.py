"""Three engines of one's own: a chat model that answers from a list, a voice of beeps, a recogniser of loudness.

Each is a plain class: `info`, `start`, `close`, and a `stream` that is an async context manager. Samples are NumPy
arrays of int16: 16 kHz to a recogniser, 24 kHz from a voice.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import aclosing

import numpy as np

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
    Word,
)


class Clerk:
    """A chat model. `hours`: from the settings."""

    info = EngineInfo(name="clerk", kind="chat", vendor="mine", model="clerk", quality="knows one thing")

    def __init__(self, hours: str = "nine to five") -> None:
        self.hours = hours

    async def start(self) -> None:
        """Load a model here; the first call comes afterwards."""

    async def close(self) -> None:
        """Nothing is held."""

    def stream(self, request: ChatRequest):
        return aclosing(self._answer(request))  # whoever leaves early ends the generator

    async def _answer(self, request: ChatRequest) -> AsyncIterator[ChatDelta]:
        asked = next((message.content for message in reversed(request.messages) if message.role == "user"), "")
        answer = f"We are open from {self.hours}." if "open" in asked.lower() else "Ask me when we are open."
        for word in answer.split(" "):
            yield TextDelta(word + " ")
        yield ChatEnd("stop")


class Beeps:
    """A voice: one beep a word."""

    info = EngineInfo(name="beeps", kind="tts", vendor="mine", model="beeps")
    voices = ("low", "high")

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def stream(self, request: SpeechRequest):
        return aclosing(self._speak(request))

    async def _speak(self, request: SpeechRequest) -> AsyncIterator[SpeechChunk]:
        hertz = 880 if request.voice == "high" else 440
        # Work that takes long belongs into a thread, or it would hold up the other calls of this engine.
        beep = await asyncio.to_thread(_beep, hertz, 0.2 / request.speed)
        for number, match in enumerate(re.finditer(r"[\w'&]+", request.text)):
            word = Word(match.start(), match.end(), number * len(beep) / 24)
            yield SpeechChunk(beep, (word,))


def _beep(hertz: int, seconds: float) -> np.ndarray:
    time = np.arange(int(24_000 * seconds)) / 24_000
    return (8000 * np.sin(2 * np.pi * hertz * time) * np.hanning(len(time))).astype(np.int16)


class Ears:
    """A recogniser that hears how loud it is."""

    info = EngineInfo(name="ears", kind="stt", vendor="mine", model="ears")

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def stream(self, options: SttOptions):
        return Utterance()


class Utterance:
    """One utterance: `push` and `finish` never block; the transcript is iterated."""

    def __init__(self) -> None:
        self.loudest = 0
        self.finished = asyncio.Event()
        self.told = False

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_: object) -> None:
        self.told = True
        self.finished.set()

    def push(self, pcm: np.ndarray) -> None:
        if not self.finished.is_set() and len(pcm):
            self.loudest = max(self.loudest, int(np.abs(pcm.astype(np.int32)).max()))

    def finish(self) -> None:
        self.finished.set()

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        await self.finished.wait()
        if not self.told:
            self.told = True
            yield Transcript("are you open" if self.loudest > 1000 else "", final=True)
