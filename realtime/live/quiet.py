"""What silence leads to: a filler while a tool runs, word that nobody speaks, hanging up. Sans-I/O.

Told after every input whether anything is going on (`update`), it says when it wants to be asked
(`deadline`) and what is due then (`due`). Times are monotonic seconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from realtime.live.agent import Filler
from realtime.live.effects import IsQuiet


@dataclass(frozen=True, slots=True)
class Idle:
    """Nobody has said anything for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Goodbye:
    """What was said before hanging up has been heard."""

    reason: str


FILL_AFTER_S = 1.5
"""Seconds before a tool's own filler, where the agent has none."""


MAX_AWAITED = 16
"""Tokens of those who want to know of quiet; the oldest are forgotten."""


class Quiet:
    """`filler`: the agent's. `idle_seconds`: of silence after which `Idle` is due, again and again, with their sum."""

    def __init__(self, filler: Filler | None, idle_seconds: float | None) -> None:
        self.filler = filler
        self.idle_seconds = idle_seconds
        self._since: float | None = None
        """Nothing has sounded and nobody has spoken since then."""
        self._listened = False
        self._waiting = False
        self._own_filler: str | None = None
        self._unsettled = False
        self._filled = False
        self._idle_since: float | None = None
        """The silence that counts towards the next `Idle`; what the bot says meanwhile begins it anew."""
        self._reports = 0
        self._goodbye: Goodbye | None = None
        self._awaited: deque[str] = deque(maxlen=MAX_AWAITED)

    def opened(self, now: float) -> None:
        """The caller can hear: from now on silence counts."""
        self._listened = True
        self._since = self._idle_since = now

    def caller_spoke(self) -> None:
        """Or wrote: from here silence is counted anew."""
        self._reports = 0

    def begin_waiting(self) -> None:
        """The model has called tools and the caller waits for what they say."""
        self._waiting, self._filled = True, False

    def end_waiting(self) -> None:
        self._waiting = False

    def hang_up(self, reason: str) -> None:
        self._goodbye = self._goodbye or Goodbye(reason)

    def stay(self) -> None:
        """The caller has more to say: nobody hangs up, unless asked to again."""
        self._goodbye = None

    def await_quiet(self, token: str) -> None:
        self._awaited.append(token)

    def update(
        self, now: float, *, busy: bool, unsettled: bool, heard_until: float | None, own_filler: str | None
    ) -> None:
        """`busy`: somebody speaks, or a response is made or heard. `heard_until`: a client still plays what it got.

        `unsettled`: something is still to be said of tools' results, or the caller's words are not known yet.
        """
        self._own_filler, self._unsettled = own_filler, unsettled
        if busy:
            self._since = self._idle_since = None
        elif self._since is None:
            self._since = self._idle_since = now if heard_until is None else max(now, heard_until)

    @property
    def deadline(self) -> float | None:
        due = (self._quiet_at, self._goodbye_at, self._filler_at, self._idle_at)
        return min((at for at in due if at is not None), default=None)

    @property
    def _goodbye_at(self) -> float | None:
        return self._since if self._goodbye is not None and not self._unsettled else None

    @property
    def _quiet_at(self) -> float | None:
        return self._since if self._awaited else None

    @property
    def _filler_at(self) -> float | None:
        if self._since is None or not self._waiting or self._filled or self._filling is None:
            return None
        return self._since + self._filling.after_s

    @property
    def _filling(self) -> Filler | None:
        if self._own_filler is None:
            return self.filler
        if not self._own_filler:
            return None
        return Filler(self._own_filler, self.filler.after_s if self.filler else FILL_AFTER_S)

    @property
    def _idle_at(self) -> float | None:
        if self.idle_seconds is None or self._idle_since is None or self._waiting or not self._listened:
            return None
        return self._idle_since + self.idle_seconds

    def due(self, now: float) -> Filler | Idle | IsQuiet | Goodbye | None:
        """What is due by now, once."""
        if self._awaited and self._reached(self._quiet_at, now):
            return IsQuiet(self._awaited.popleft())
        if self._goodbye is not None and self._reached(self._goodbye_at, now):
            goodbye, self._goodbye = self._goodbye, None
            return goodbye
        if self._reached(self._filler_at, now):
            self._filled = True
            return self._filling
        if self.idle_seconds is not None and self._reached(self._idle_at, now):
            self._reports += 1
            self._idle_since = now
            return Idle(self.idle_seconds * self._reports)
        return None

    @staticmethod
    def _reached(at: float | None, now: float) -> bool:
        return at is not None and now >= at
