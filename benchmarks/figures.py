"""Percentiles of measured values. No figure leaves here without the number of values behind it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

Json = dict[str, Any]


def percentile(values: Iterable[float], percent: float) -> float:
    """Nearest rank: always a value that was measured. `values` must not be empty."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def median(values: Iterable[float]) -> float:
    """The middle value, or the mean of the two in the middle. `values` must not be empty."""
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def summary(values: Iterable[float], digits: int = 1) -> Json:
    """`{n, min, p50, p95, max}`; only `n` when there are none."""
    known = list(values)
    if not known:
        return {"n": 0}
    return {
        "n": len(known),
        "min": round(min(known), digits),
        "p50": round(median(known), digits),
        "p95": round(percentile(known, 95), digits),
        "max": round(max(known), digits),
    }
