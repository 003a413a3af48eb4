"""Text to 24 kHz speech with word times, in the voice's worker process: pieces, words, resampling.

One synthesiser serves every stream; a stream is given one piece of its text (a few sentences) at a
time, so that a long text holds up nobody. Audio leaves as it is made; a cancel stops it within a chunk.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Protocol

import numpy as np

from media.audio import RATE_OUT, Pcm
from media.resample import Resampler
from realtime.adapters.base import EngineError, Word
from realtime.adapters.embedded import voice_cli, voices
from realtime.adapters.embedded.espeak import Emit, Espeak, Events
from realtime.adapters.embedded.worker_main import Output
from realtime.adapters.words import WordTimes, interpolate, speakable

_PIECE: Final = 300
"""Characters: about 20 s of speech, 30 ms of espeak's time."""
_PIECE_SLOW: Final = 120
"""For a synthesiser that gives nothing before a piece is whole."""
_SENTENCE_END = re.compile(r"[.!?…。！？]+[\"')\]]*(?=\s|$)|[。！？]|\n+")
_CLAUSE_END = re.compile(r"[,;:，、](?=\s|$)|[，、]")
_PAUSES_MS: Final = ((".!?…。！？", 200), (",;:，、", 80))
"""Milliseconds of silence after a text that ends so. espeak leaves it only within one text, and the
next sentence of an answer is another text; the commands write it themselves."""


class Synthesiser(Protocol):
    rate: int

    def describe(self) -> Mapping[str, Any]: ...

    def speak(self, text: str, voices: list[str], pitch: int, speed: float, emit: Emit) -> None: ...


def pieces(text: str, longest: int = _PIECE) -> Iterator[tuple[int, int]]:
    """Spans of `text`, each at most `longest` characters, cut at the end of a sentence, else of a clause,
    else between words, else anywhere. Together they are the whole text."""
    start = 0
    while len(text) - start > longest:
        window = text[start : start + longest]
        ends = [match.end() for match in _SENTENCE_END.finditer(window[:-1])]
        ends = ends or [match.end() for match in _CLAUSE_END.finditer(window[:-1])]
        cut = ends[-1] if ends else window.rfind(" ") + 1
        stop = start + (cut or longest)
        yield start, stop
        start = stop
    if start < len(text):
        yield start, len(text)


class VoiceEngine:
    """`name`: `espeakng-loader`, `flite` or `espeak-ng`."""

    def __init__(self, name: str) -> None:
        makers: dict[str, Callable[[], Synthesiser]] = {
            "espeakng-loader": Espeak,
            "flite": voice_cli.flite,
            "espeak-ng": voice_cli.espeak_ng,
        }
        self.name = name
        self.synthesiser = makers[name]()
        self._warm_up()

    def describe(self) -> Mapping[str, Any]:
        return self.synthesiser.describe()

    def open(self, head: Mapping[str, Any], body: bytes, out: Output) -> Speech:
        return Speech(self, head, body.decode("utf-8", "replace"), out)

    def voices(self, timbre: voices.Timbre, language: str | None) -> list[str]:
        return [timbre.flite] if self.name == "flite" else voices.espeak_voices(timbre, language)

    def _warm_up(self) -> None:
        resampler = Resampler(self.synthesiser.rate, RATE_OUT)

        def emit(pcm: Pcm, events: Events) -> bool:
            resampler.push(pcm)
            return True

        self.synthesiser.speak("Hello.", self.voices(voices.timbre(None), None), 50, 1.0, emit)


class Speech:
    """A `Job`: items are 24 kHz PCM with `w`: [[start, end, at_ms], …]."""

    def __init__(self, engine: VoiceEngine, head: Mapping[str, Any], text: str, out: Output) -> None:
        timbre = voices.timbre(head.get("voice"))
        self._engine = engine
        self._text = text
        self._out = out
        self._names = engine.voices(timbre, head.get("language"))
        self._pitch = timbre.pitch
        self._speed = float(head.get("speed", 1.0))
        self._streams = engine.name == "espeakng-loader"
        self._pieces = pieces(text, _PIECE if self._streams else _PIECE_SLOW)
        self._resampler = Resampler(engine.synthesiser.rate, RATE_OUT)
        self._samples = 0
        """Made so far, at the synthesiser's rate."""

    def data(self, payload: bytes) -> None:
        raise EngineError("a voice takes no more text", code="engine_error")

    def finish(self) -> None:
        """The whole text came with the beginning."""

    def close(self) -> None:
        self._pieces = iter(())

    def step(self) -> bool:
        span = next(self._pieces, None)
        if span is None:
            self._item(self._resampler.flush(), [])
            self._out.end()
            return False
        if speakable(self._text[span[0] : span[1]]):
            self._say(*span)
        return True

    @property
    def _ms(self) -> float:
        return self._samples * 1000 / self._engine.synthesiser.rate

    def _say(self, start: int, stop: int) -> None:
        text = self._text[start:stop]
        begins = self._ms
        words = WordTimes(text, offset=start, start_ms=begins)
        whole: list[Pcm] = []

        def emit(pcm: Pcm, events: Events) -> bool:
            if self._out.cancelled:
                return False
            if self._streams:
                known = [word for position, ms in events for word in words.event(position, begins + ms)]
                self._audio(pcm, known)
            else:
                whole.append(pcm)
            return True

        self._engine.synthesiser.speak(text, self._names, self._pitch, self._speed, emit)
        if self._streams:
            last = words.finish(self._ms)
            self._audio(self._pause_after(text), last)
        else:
            self._interpolated(text, start, whole)

    def _interpolated(self, text: str, start: int, whole: list[Pcm]) -> None:
        """For a synthesiser without word times, which gives a piece at once."""
        rate = self._engine.synthesiser.rate
        total_ms = voice_cli.sounding(np.concatenate([np.zeros(0, np.int16), *whole])) * 1000 / rate
        words = list(interpolate(text, total_ms, start_ms=self._ms))
        for pcm in whole:
            until = self._ms + len(pcm) * 1000 / rate
            count = sum(word.at_ms < until for word in words)
            self._audio(pcm, [Word(word.start + start, word.end + start, word.at_ms) for word in words[:count]])
            del words[:count]

    def _pause_after(self, text: str) -> Pcm:
        last = text.rstrip().rstrip("\"')]»”’")[-1:]
        pause_ms = next((ms for marks, ms in _PAUSES_MS if last in marks), 0)
        return np.zeros(self._engine.synthesiser.rate * pause_ms // 1000, np.int16)

    def _audio(self, pcm: Pcm, words: list[Word]) -> None:
        self._samples += len(pcm)
        self._item(self._resampler.push(pcm), words)

    def _item(self, pcm: Pcm, words: list[Word]) -> None:
        if len(pcm) or words:
            head = {"w": [[word.start, word.end, round(word.at_ms, 1)] for word in words]} if words else {}
            self._out.item(head, pcm.tobytes())


def load(options: Mapping[str, Any]) -> VoiceEngine:
    return VoiceEngine(str(options["voice"]))
