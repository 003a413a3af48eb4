"""How late something came, again and again: the latest moments for a percentile, all of them in buckets.

What happens fifty or five hundred times a second is noted here for half a microsecond; who draws it (a status page,
Prometheus) reads the sums when it is asked. Sans-I/O.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from typing import Final

BOUNDS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.1, 0.25, 1.0)
"""Seconds, upper ends: two packets are 40 ms, and a listener's buffer rides out 100 ms."""


class Lateness:
    """`kept`: how many moments the percentile is over."""

    def __init__(self, kept: int) -> None:
        self._latest: deque[float] = deque(maxlen=kept)
        self.counts = [0] * (len(BOUNDS_S) + 1)
        """By the bucket of `BOUNDS_S`; the last one is for what was later still."""
        self.total_s = 0.0

    @property
    def known(self) -> int:
        """Moments that the percentile is over."""
        return len(self._latest)

    def note(self, seconds: float) -> None:
        """Too early counts as in time."""
        seconds = max(0.0, seconds)
        self._latest.append(seconds)
        self.counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.total_s += seconds

    def forget(self) -> None:
        """The percentile begins anew; the sums go on."""
        self._latest.clear()

    @property
    def p99_ms(self) -> float:
        """The 99th percentile of the latest, milliseconds; 0 before the first."""
        ordered = sorted(self._latest)
        return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000 if ordered else 0.0
