"""Words of a text and when they are said: what a voice without word times falls back on.

A word is a run of non-space characters that holds a letter or a digit, its punctuation included;
scripts written without spaces count character by character. Offsets are characters of the text as
given, so that a history can be cut at a word. It must never give an offset outside the text or a time
before the word that came earlier.
"""

from __future__ import annotations

import re

from realtime.adapters.base import Word

_UNSPACED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Kana and Han."""
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")

_GAP = 1.0
"""Characters' worth of time between two words; a clause's end is longer than that."""
_CLAUSE_GAP = 4.0
_SENTENCE_GAP = 8.0


def spans(text: str) -> list[tuple[int, int]]:
    """Start and end of every word of `text`, in order."""
    return [match.span() for match in _TOKEN.finditer(text) if any(map(str.isalnum, match.group()))]


def speakable(text: str) -> bool:
    """Whether there is anything to say: a letter or a digit."""
    return any(map(str.isalnum, text))


def interpolate(text: str, duration_ms: float, *, start_ms: float = 0.0) -> tuple[Word, ...]:
    """The words of `text` spread over `duration_ms` by their length, the first at `start_ms`."""
    found = spans(text)
    marks: list[float] = []
    at = 0.0
    for start, end in found:
        marks.append(at)
        at += (end - start) + _gap_after(text[end - 1])
    if found:
        at -= _gap_after(text[found[-1][1] - 1])
    scale = max(duration_ms, 0.0) / at if at else 0.0
    return tuple(Word(start, end, start_ms + mark * scale) for (start, end), mark in zip(found, marks, strict=True))


def _gap_after(last: str) -> float:
    if last in ".!?…。！？":
        return _SENTENCE_GAP
    return _CLAUSE_GAP if last in ",;:，、" else _GAP


class WordTimes:
    """Turns an engine's word events into the words of `text`, in order and each once.

    Engines report a character position and a time, skip some words and report others many times
    (digits of a number). The first event in a word gives its time; a word without one lies between its
    neighbours. `offset`: characters before `text` in the whole request.
    """

    def __init__(self, text: str, *, offset: int = 0, start_ms: float = 0.0) -> None:
        self._spans = spans(text)
        self._offset = offset
        self._next = 0
        self._last_ms = start_ms

    def event(self, position: int, at_ms: float) -> list[Word]:
        """`position`: character index in `text`. Words that became known, possibly none."""
        reached = self._next
        while reached < len(self._spans) and self._spans[reached][1] <= position:
            reached += 1
        if reached >= len(self._spans) or position < self._spans[reached][0]:
            return []
        return self._until(reached + 1, at_ms)

    def finish(self, end_ms: float) -> list[Word]:
        """The words that had no event; the audio of `text` ends at `end_ms`."""
        left = len(self._spans) - self._next
        if not left:
            return []
        step = max(end_ms - self._last_ms, 0.0) / (left + 1)
        return self._until(len(self._spans), self._last_ms + step * left)

    def _until(self, stop: int, at_ms: float) -> list[Word]:
        count = stop - self._next
        first, last = self._last_ms, max(at_ms, self._last_ms)
        words = [
            Word(start + self._offset, end + self._offset, first + (last - first) * (index + 1) / count)
            for index, (start, end) in enumerate(self._spans[self._next : stop])
        ]
        if words:
            self._next, self._last_ms = stop, last
        return words
