"""What a call costs: the sum over everything it used, by engine. A price that is not known makes the sum unknown."""

from __future__ import annotations

from typing import Any

from realtime.adapters.metering import Spent
from realtime.adapters.routing import Amount

_DIGITS = 10
"""Of a dollar: a token costs a hundred-millionth and more."""

_AMOUNTS = {
    "chat": ("input_tokens", "output_tokens", "cached_tokens"),
    "stt": ("audio_seconds",),
    "tts": ("characters",),
}
"""What is counted of each kind."""


class Bill:
    """Of one call. Bounded by the engines there are."""

    def __init__(self) -> None:
        self._parts: dict[tuple[str, str], Spent] = {}
        self._since: float | None = 0.0

    def add(self, spent: Spent) -> None:
        key = (spent.kind, spent.engine)
        before = self._parts.get(key)
        self._parts[key] = spent if before is None else _sum(before, spent)
        self._since = _plus(self._since, spent.usd)

    def take_turn(self) -> float | None:
        """US dollars since this was asked last; None when a price is not known."""
        since, self._since = self._since, 0.0
        return None if since is None else round(since, _DIGITS)

    @property
    def usd(self) -> float | None:
        total: float | None = 0.0
        for part in self._parts.values():
            total = _plus(total, part.usd)
        return None if total is None else round(total, _DIGITS)

    def record(self) -> dict[str, Any]:
        """As webhooks and the transcript tell it."""
        return {
            "usd": self.usd,
            "estimated": any(part.estimated for part in self._parts.values()),
            "engines": [
                {
                    "kind": part.kind,
                    "engine": part.engine,
                    **{name: round(getattr(part.amount, name), 3) for name in _AMOUNTS[part.kind]},
                    "usd": None if part.usd is None else round(part.usd, _DIGITS),
                }
                for part in self._parts.values()
            ],
        }


def _sum(one: Spent, other: Spent) -> Spent:
    a, b = one.amount, other.amount
    amount = Amount(
        a.input_tokens + b.input_tokens,
        a.output_tokens + b.output_tokens,
        a.cached_tokens + b.cached_tokens,
        a.audio_seconds + b.audio_seconds,
        a.characters + b.characters,
    )
    return Spent(one.kind, one.engine, amount, _plus(one.usd, other.usd), one.estimated or other.estimated)


def _plus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
