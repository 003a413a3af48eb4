"""A circuit breaker for one engine: after failures in a row it is left alone for a while. Sans-I/O.

    CLOSED --THRESHOLD failures in a row--> OPEN --after OPEN_S--> HALF_OPEN --success--> CLOSED
                                              ^-----------------------| failure

In HALF_OPEN one attempt is let through and the others keep away until it is decided. An attempt that
ends without a verdict (the caller left) gives its place back.
"""

from __future__ import annotations

from enum import Enum

THRESHOLD = 5
"""Failures in a row: fewer are bad luck."""

OPEN_S = 15.0
"""Seconds until an engine is tried again."""


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
        self.state = BreakerState.CLOSED

    def allows(self, now: float) -> bool:
        """May an attempt begin? In HALF_OPEN a yes takes the one place there is."""
        if self.state is BreakerState.OPEN and now - self._opened_at >= self._open_s:
            self.state, self._probing = BreakerState.HALF_OPEN, False
        if self.state is BreakerState.HALF_OPEN and not self._probing:
            self._probing = True
            return True
        return self.state is BreakerState.CLOSED

    def succeeded(self) -> None:
        self._failures, self._probing = 0, False
        self.state = BreakerState.CLOSED

    def failed(self, now: float) -> None:
        self._failures += 1
        self._probing = False
        if self.state is not BreakerState.CLOSED or self._failures >= self._threshold:
            self.state, self._opened_at = BreakerState.OPEN, now

    def undecided(self) -> None:
        self._probing = False
