"""When each word of a speech request sounds, while its audio is still arriving, for voices that do not say.

Until the length of the audio is known, words are placed at the voice's pace; once it is, those not yet
told are spread over what is left. A word is told no later than it can be heard and otherwise as late as
possible, because a told time is never taken back: times only grow. Sans-I/O: time is an argument.
"""

from __future__ import annotations

from collections import OrderedDict

from realtime.adapters.base import Word
from realtime.adapters.words import interpolate

CHARACTERS_PER_SECOND = 15.0
"""English at an ordinary pace, blanks counted."""

AHEAD_MS = 400.0
"""A word is told this long before it could be heard at the earliest, which covers a late tick."""

MAX_VOICES = 64


class WordEstimate:
    """The words of one request. `arrived` with each piece of audio, `finish` when the length is known."""

    def __init__(self, text: str, ms_per_character: float) -> None:
        self._words = interpolate(text, 1.0)
        """Times are shares of the whole audio here, from 0 to 1."""
        self._next = 0
        self._expected_ms = max(1.0, len(text) * ms_per_character)
        self._last_ms = 0.0

    def arrived(self, audio_ms: float, elapsed_ms: float) -> tuple[Word, ...]:
        """`audio_ms` of audio are here, the first of them since `elapsed_ms`: nobody heard more than that."""
        due = min(audio_ms, elapsed_ms + AHEAD_MS)
        told: list[Word] = []
        while self._next < len(self._words):
            at = max(self._last_ms, self._words[self._next].at_ms * self._expected_ms)
            if at >= due:
                break
            told.append(self._tell(at))
        return tuple(told)

    def finish(self, audio_ms: float) -> tuple[Word, ...]:
        """The rest, between the last word told and the end of the audio."""
        told: list[Word] = []
        begin_ms = self._last_ms
        begin = self._words[self._next - 1].at_ms if self._next else 0.0
        left_ms = max(0.0, audio_ms - begin_ms)
        while self._next < len(self._words):
            share = (self._words[self._next].at_ms - begin) / (1.0 - begin)
            told.append(self._tell(begin_ms + share * left_ms))
        return tuple(told)

    def _tell(self, at_ms: float) -> Word:
        word = self._words[self._next]
        self._next += 1
        self._last_ms = at_ms
        return Word(word.start, word.end, at_ms)


class Paces:
    """How fast each voice speaks, learned from finished requests; bounded, the oldest voice goes first."""

    def __init__(self) -> None:
        self._ms: OrderedDict[str, float] = OrderedDict()

    def ms_per_character(self, voice: str, speed: float) -> float:
        return self._ms.get(voice, 1000.0 / CHARACTERS_PER_SECOND) / speed

    def learn(self, voice: str, speed: float, text: str, audio_ms: float) -> None:
        """Short texts say little about the pace and are left out; no single one decides it."""
        if len(text) < 20 or audio_ms <= 0:
            return
        measured = min(250.0, max(20.0, audio_ms * speed / len(text)))
        known = self._ms.pop(voice, measured)
        self._ms[voice] = known + 0.3 * (measured - known)
        while len(self._ms) > MAX_VOICES:
            self._ms.popitem(last=False)
