"""Whose turn it is, and what is owed when the caller falls silent. Sans-I/O.

    LISTENING --speech started--> SPEAKING --speech stopped--> SETTLING --transcript--> LISTENING
        ^                            ^                             |
        |                            +------speech started---------+
        +-- (verdict: answer, resume, or nothing)

Several of the caller's utterances may be waiting for their transcripts at once (a pause just longer
than the silence asked for). The verdict falls when nobody speaks and none is outstanding; one answer
then covers all of them. An interruption without words is a false start: what it cut off is resumed,
and what it kept from being answered is answered.
"""

from __future__ import annotations

from enum import Enum

MIN_UNCLEAR_MS = 500
"""Wordless speech this long is answered ("sorry?"); anything shorter was a cough or a door."""


class Phase(Enum):
    LISTENING = "listening"
    SPEAKING = "speaking"
    SETTLING = "settling"


class Verdict(Enum):
    NOTHING = "nothing"
    ANSWER = "answer"
    RESUME = "resume"


class TurnTaking:
    """One caller's turns. Items are named by id; durations in milliseconds of media time."""

    def __init__(self) -> None:
        self._speaking: str | None = None
        self._awaited: dict[str, float] = {}
        self._onset_ms = 0.0
        self._answer_owed = False
        self._speech_cut = False
        self._unclear_ms = 0.0

    @property
    def phase(self) -> Phase:
        if self._speaking is not None:
            return Phase.SPEAKING
        return Phase.SETTLING if self._awaited else Phase.LISTENING

    @property
    def speaking(self) -> str | None:
        """The item the caller is speaking."""
        return self._speaking

    def speech_started(self, item_id: str, onset_ms: float) -> None:
        self._speaking = item_id
        self._onset_ms = onset_ms

    def speech_stopped(self, ended_ms: float) -> str | None:
        """The item that ended, now waiting for its transcript."""
        item_id, self._speaking = self._speaking, None
        if item_id is not None:
            self._awaited[item_id] = max(0.0, ended_ms - self._onset_ms)
        return item_id

    def speech_dropped(self) -> None:
        """The utterance under way was thrown away: nothing is owed for it."""
        self._speaking = None

    def answer_lost(self) -> None:
        """A response to the caller was stopped before any of it was heard: it is still owed."""
        self._answer_owed = True

    def speech_cut(self) -> None:
        """The caller's speech cut the bot off with words yet unheard."""
        self._speech_cut = True

    def answered(self) -> None:
        """A response was made for some other reason; nothing is owed any more."""
        self._answer_owed = self._speech_cut = False
        self._unclear_ms = 0.0

    def transcript(self, item_id: str, *, words: bool) -> Verdict:
        """The item's final transcript came, with or without words in it."""
        duration = self._awaited.pop(item_id, None)
        if words:
            self._answer_owed = True
        elif duration is not None:
            self._unclear_ms = max(self._unclear_ms, duration)
        return self._settle()

    def transcript_failed(self, item_id: str) -> Verdict:
        """No transcript will come. It is reported as an error, so nothing is owed for the item itself."""
        self._awaited.pop(item_id, None)
        return self._settle()

    def _settle(self) -> Verdict:
        if self.phase is not Phase.LISTENING:
            return Verdict.NOTHING
        owed, cut, unclear = self._answer_owed, self._speech_cut, self._unclear_ms
        self.answered()
        if owed:
            return Verdict.ANSWER
        if cut:
            return Verdict.RESUME
        return Verdict.ANSWER if unclear >= MIN_UNCLEAR_MS else Verdict.NOTHING
