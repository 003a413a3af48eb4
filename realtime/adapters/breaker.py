"""A circuit breaker for one engine: when it fails too much it is left alone for a while. Sans-I/O.

    CLOSED --THRESHOLD failures in a row--> OPEN --after OPEN_S--> HALF_OPEN --success--> CLOSED
      |----more than half of the recent----> ^ -----------------------| failure

In HALF_OPEN one attempt is let through and the others keep away until it is decided. An attempt that
ends without a verdict (the caller left) gives its place back. Besides, an engine that said when to come
back `rests` until then, in any state: being busy is no failure.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

THRESHOLD = 5
"""Failures in a row: fewer are bad luck."""

OPEN_S = 15.0
"""Seconds until an engine is tried again."""

WINDOW_S = 30.0
"""Seconds that an outcome counts as recent."""

ENOUGH = 10
"""Recent outcomes from which their share of failures means something."""

REMEMBERED = 64
"""Outcomes kept."""


class BreakerState(Enum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    def __init__(self, *, threshold: int = THRESHOLD, open_s: float = OPEN_S) -> None:
        self._threshold = threshold
        self._open_s = open_s
        self._failures = 0
        self._opened_at = 0.0
        self._probing = False
        self._rests_until = float("-inf")
        self._recent: deque[tuple[float, bool]] = deque(maxlen=REMEMBERED)
        self.state = BreakerState.CLOSED

    def allows(self, now: float) -> bool:
        """May an attempt begin? In HALF_OPEN a yes takes the one place there is."""
        if now < self._rests_until:
            return False
        if self.state is BreakerState.OPEN and now - self._opened_at >= self._open_s:
            self.state, self._probing = BreakerState.HALF_OPEN, False
        if self.state is BreakerState.HALF_OPEN and not self._probing:
            self._probing = True
            return True
        return self.state is BreakerState.CLOSED

    def healthy(self, now: float) -> bool:
        """Whether `allows` would say yes; takes no place."""
        if now < self._rests_until:
            return False
        if self.state is BreakerState.OPEN:
            return now - self._opened_at >= self._open_s
        return self.state is BreakerState.CLOSED or not self._probing

    def succeeded(self, now: float | None = None) -> None:
        """`now`: counts for the share of failures too."""
        self._failures, self._probing = 0, False
        if self.state is not BreakerState.CLOSED:
            self._recent.clear()
        elif now is not None:
            self._recent.append((now, True))
        self.state = BreakerState.CLOSED

    def failed(self, now: float) -> None:
        self._failures += 1
        self._probing = False
        self._recent.append((now, False))
        if self.state is not BreakerState.CLOSED or self._failures >= self._threshold or self._mostly_fails(now):
            self.state, self._opened_at = BreakerState.OPEN, now

    def undecided(self) -> None:
        self._probing = False

    def rest(self, until: float) -> None:
        """The engine asked to be left alone until then."""
        self._probing = False
        self._rests_until = max(self._rests_until, until)

    def _mostly_fails(self, now: float) -> bool:
        recent = [good for at, good in self._recent if now - at <= WINDOW_S]
        return len(recent) >= ENOUGH and 2 * recent.count(False) > len(recent)
