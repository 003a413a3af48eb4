"""What a simulated call is made of instead of sound and vendors: a line, a detector, ears, a voice, a model.

The voice speaks each word as silence with one marked sample in its middle, so that what left the line is known
word by word, and without asking the server what it believes was heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import orjson

from media.audio import FRAME_IN, FRAME_S, RATE_OUT, Pcm
from media.endpoint import EndpointSettings, SpeechEvent, SpeechStarted, SpeechStopped
from media.leg import Abilities, LegListener
from media.playout import Playout, PlayoutEventKind
from realtime.adapters.base import (
    ChatDelta,
    ChatEnd,
    ChatRequest,
    EngineError,
    EngineInfo,
    SpeechChunk,
    SpeechRequest,
    SttOptions,
    TextDelta,
    ToolCallDelta,
    Transcript,
    Usage,
    Word,
)

_QUIET: Pcm = np.zeros(FRAME_IN, np.int16)
_MARKS = 30_000
"""Words told apart at once: values of a sample."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast all goes, in seconds: a word of either side, detector, recogniser, voice, each token of a model."""

    word: float = 0.3
    detect: float = 0.08
    transcript: float = 0.1
    voice: float = 0.1
    token: float = 0.02


class Voice:
    """A `TextToSpeech`. `words`: those on their way, by mark."""

    info = EngineInfo("simulated", "tts", "simulated", "voice")
    voices: Sequence[str] = ()

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._next = 0
        self.words: dict[int, str] = {}

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing is held."""

    def stream(self, request: SpeechRequest) -> AbstractAsyncContextManager[AsyncIterator[SpeechChunk]]:
        return aclosing(self._speak(request))

    async def _speak(self, request: SpeechRequest) -> AsyncGenerator[SpeechChunk, None]:
        await asyncio.sleep(self._pace.voice)
        samples = round(self._pace.word / request.speed * RATE_OUT)
        position = 0
        for number, word in enumerate(request.text.split()):
            start = request.text.index(word, position)
            position = start + len(word)
            self._next = self._next % _MARKS + 1
            self.words[self._next] = word
            pcm = np.zeros(samples, np.int16)
            pcm[samples // 2] = self._next
            yield SpeechChunk(pcm, (Word(start, position, number * samples * 1000 / RATE_OUT),))
            await asyncio.sleep(0)


class Ears:
    """A `SpeechToText` that is told what is being said."""

    info = EngineInfo("simulated", "stt", "simulated", "ears")

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self.saying = ""

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing is held."""

    @asynccontextmanager
    async def stream(self, options: SttOptions) -> AsyncIterator[_Utterance]:
        yield _Utterance(self, self._pace)


class _Utterance:
    def __init__(self, ears: Ears, pace: Pace) -> None:
        self._ears = ears
        self._pace = pace
        self._over = asyncio.Event()

    def push(self, pcm: Pcm) -> None:
        """Silence: the words come another way."""

    def finish(self) -> None:
        self._over.set()

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        await self._over.wait()
        text = self._ears.saying
        await asyncio.sleep(self._pace.transcript)
        yield Transcript(text, final=True)


@dataclass(frozen=True, slots=True)
class ToolCalls:
    """A model's answer that calls tools: name and arguments of each."""

    calls: tuple[tuple[str, Mapping[str, Any]], ...]

    def __and__(self, other: ToolCalls) -> ToolCalls:
        return ToolCalls(self.calls + other.calls)


def calls(name: str, /, **arguments: Any) -> ToolCalls:
    """For a scripted model: it calls this tool. `calls("a", x=1) & calls("b")`: both in one answer."""
    return ToolCalls(((name, arguments),))


Answer: TypeAlias = str | ToolCalls
Script: TypeAlias = Sequence[Answer] | Callable[[ChatRequest], Answer]


@dataclass
class Model:
    """A `ChatModel` that follows a script: one answer after the other, or what a function of the request gives."""

    script: Script
    pace: Pace
    asked: list[ChatRequest] = field(default_factory=list)
    info = EngineInfo("simulated", "chat", "simulated", "model")

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing is held."""

    def stream(self, request: ChatRequest) -> AbstractAsyncContextManager[AsyncIterator[ChatDelta]]:
        return aclosing(self._answer(request))

    async def _answer(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        number = len(self.asked)
        self.asked.append(request)
        if callable(self.script):
            answer = self.script(request)
        elif number < len(self.script):
            answer = self.script[number]
        else:
            raise EngineError(f"the script has {number} answers, and the model is asked for another", code="script")
        if isinstance(answer, ToolCalls):
            there = [tool.name for tool in request.tools]
            for name, _ in answer.calls:
                if name not in there:
                    known = ", ".join(there) or "none"
                    raise EngineError(f"the script calls the tool {name!r}, and there are: {known}", code="script")
            for index, (name, arguments) in enumerate(answer.calls):
                await asyncio.sleep(self.pace.token)
                yield ToolCallDelta(index, orjson.dumps(arguments).decode(), f"call_{number}_{index}", name)
            yield ChatEnd("tool_calls", Usage(1, 1))
            return
        for word in answer.split(" "):
            await asyncio.sleep(self.pace.token)
            yield TextDelta(word + " ")
        yield ChatEnd("stop", Usage(1, 1))


class Detector:
    """In place of `media.vad.SpeechDetector`: it is told when there is speech."""

    def __init__(self, settings: EndpointSettings, on_event: Callable[[SpeechEvent], None]) -> None:
        self._on_event = on_event
        self.settings = settings

    def push(self, pcm: Pcm, arrived_at: float) -> None:
        """Silence: what is speech comes another way."""

    def configure(self, settings: EndpointSettings) -> None:
        self.settings = settings

    def reset(self) -> None:
        """Nothing is remembered."""

    def close(self) -> None:
        """Nothing is held."""

    def started(self, onset_ms: float, onset_at: float) -> None:
        self._on_event(SpeechStarted(max(0, int(onset_ms - self.settings.prefix_padding_ms)), onset_ms, onset_at))

    def stopped(self, ended_ms: float, ended_at: float) -> None:
        self._on_event(SpeechStopped(int(ended_ms + self.settings.silence_duration_ms), ended_ms, ended_at))


class Detectors:
    """In place of `media.vad.Vad`: makes the one detector of the call."""

    def __init__(self) -> None:
        self.made: Detector | None = None

    def detector(
        self, settings: EndpointSettings, on_event: Callable[[SpeechEvent], None], *, guard: object = None
    ) -> Detector:
        self.made = Detector(settings, on_event)
        return self.made


class Line:
    """`media.leg.Leg`: silence comes in and frames go out, every 20 ms."""

    def __init__(self, voice: Voice, on_word: Callable[[str], None], on_text: Callable[[str], None]) -> None:
        self._voice = voice
        self._on_word = on_word
        self._on_text = on_text
        self._playout = Playout()
        self._listener: LegListener | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.media_ms = 0.0
        """Of the caller's audio so far."""
        self.closed: str | None = None
        self.transferred: str | None = None
        self.last_sent_at: float | None = None

    @property
    def abilities(self) -> Abilities:
        return Abilities(text=True, dtmf=True, transfer=True)

    @property
    def playout(self) -> Playout:
        return self._playout

    @property
    def sounds(self) -> bool:
        return self._playout.speaking is not None or not self._playout.idle

    def attach(self, listener: LegListener) -> None:
        self._listener = listener

    def send_text(self, text: str) -> None:
        self._on_text(text)

    def send_keys(self, digits: str) -> None:
        """Nobody listens."""

    async def transfer(self, target: str) -> None:
        self.transferred = target
        await self.close("transferred")

    def wake(self) -> None:
        """Frames leave all the time."""

    def stats(self) -> Mapping[str, float]:
        return {}

    async def close(self, reason: str = "hangup") -> None:
        if self.closed is None:
            self.closed = reason
            if self._timer is not None:
                self._timer.cancel()
            if self._listener is not None:
                self._listener.on_closed(reason)

    def open(self) -> None:
        assert self._listener is not None
        self._listener.on_text_open()
        self._listener.on_open()
        self._tick(asyncio.get_running_loop().time())

    def press(self, key: str) -> None:
        if self._listener is not None and self.closed is None:
            self._listener.on_key(key)

    def _tick(self, now: float) -> None:
        listener = self._listener
        if self.closed is not None or listener is None:
            return
        self._timer = asyncio.get_running_loop().call_at(now + FRAME_S, self._tick, now + FRAME_S)
        self.media_ms += FRAME_S * 1000
        listener.on_audio(_QUIET, now)
        frame, events = self._playout.next_frame(now)
        fade = any(event.kind is PlayoutEventKind.CUT for event in events)
        if frame is not None and not fade:
            self.last_sent_at = now
            for mark in frame[frame != 0]:
                word = self._voice.words.pop(int(mark), None)
                if word is not None:
                    self._on_word(word)
        for event in events:
            listener.on_playout(event)
