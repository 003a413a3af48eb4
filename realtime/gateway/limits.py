"""How much a key may ask for, and what it used: requests a minute, dollars a day, counters by day.

Requests are counted by GCRA (generic cell rate algorithm) in this process: a steady rate with a burst of
a sixth of a minute. Usage is kept in memory and written to the store every few seconds, one record for
each key, day and process, so that it survives a restart and processes do not overwrite each other. A
crash may lose the last seconds of it. Nothing here delays a request by more than a dictionary look-up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import orjson

from realtime.adapters.routing import Amount
from realtime.gateway.errors import GatewayError
from realtime.store.base import Store, StoreError

BURST_S = 10.0
"""Seconds' worth of requests that may come at once."""
MAX_KEYS = 10_000
WRITE_S = 5.0
KEPT_S = 90 * 86_400.0
"""Usage is kept for three months."""
DAY_S = 86_400

logger = logging.getLogger(__name__)


class Rate:
    """GCRA for many keys; bounded, the least recently seen are forgotten."""

    def __init__(self, per_minute: int, *, burst_s: float = BURST_S) -> None:
        self._interval = 60.0 / per_minute
        self._burst = max(burst_s, self._interval)
        self._due: OrderedDict[str, float] = OrderedDict()

    def take(self, key: str, now: float) -> float:
        """0.0, or the seconds to wait."""
        due = max(self._due.pop(key, now), now)
        if due - now > self._burst - self._interval:
            self._due[key] = due
            return due - now - (self._burst - self._interval)
        self._due[key] = due + self._interval
        while len(self._due) > MAX_KEYS:
            self._due.popitem(last=False)
        return 0.0


@dataclass(slots=True)
class Used:
    """What one key used in one day. `unpriced`: requests whose cost nobody knows."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    audio_seconds: float = 0.0
    characters: int = 0
    images: int = 0
    cost_usd: float = 0.0
    unpriced: int = 0

    def add(self, other: Used) -> None:
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(slots=True)
class _Day:
    earlier: Used
    """From the store, written by other processes and earlier lives of this one."""
    own: Used = field(default_factory=Used)
    changed: bool = False


class Meter:
    """`clock`: unix seconds. `spend_usd_per_day`: None for no limit."""

    def __init__(
        self, store: Store, spend_usd_per_day: float | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._limit = spend_usd_per_day
        self._clock = clock
        self._process = secrets.token_hex(4)
        self._days: OrderedDict[tuple[str, int], _Day] = OrderedDict()
        self._writer: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._writer = asyncio.create_task(self._write_now_and_then())

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
        with contextlib.suppress(StoreError):  # told; the rest of the server is to close all the same
            await self._write()

    async def admit(self, key: str) -> None:
        """429 when the day's money is spent."""
        if self._limit is None:
            return
        day = await self._day(key)
        if day.earlier.cost_usd + day.own.cost_usd >= self._limit:
            message = f"This key has spent its {self._limit:g} US dollars of today."
            raise GatewayError(429, "spend_limit_exceeded", message, retry_after=DAY_S - self._clock() % DAY_S)

    async def count(self, key: str, amount: Amount, cost: float | None) -> None:
        day = await self._day(key)
        own = day.own
        own.add(
            Used(
                1,
                amount.input_tokens,
                amount.output_tokens,
                amount.audio_seconds,
                amount.characters,
                amount.images,
                cost or 0.0,
                cost is None,
            )
        )
        day.changed = True

    async def used(self, key: str, days: int) -> dict[str, Used]:
        """By date, today first; days without use are left out."""
        await self._write()
        today = int(self._clock()) // DAY_S
        found: dict[str, Used] = {}
        for day in range(today, today - days, -1):
            total = await self._stored(key, day)
            if total.requests:
                found[time.strftime("%Y-%m-%d", time.gmtime(day * DAY_S))] = total
        return found

    async def _day(self, key: str) -> _Day:
        place = (key, int(self._clock()) // DAY_S)
        day = self._days.get(place)
        if day is None:
            earlier = await self._stored(*place)
            day = self._days.setdefault(place, _Day(earlier))
            while len(self._days) > MAX_KEYS:
                self._days.popitem(last=False)
        return day

    async def _stored(self, key: str, day: int) -> Used:
        total = Used()
        for _, value in await self._store.scan(f"usage:{key}:{day}:", limit=1000):
            total.add(Used(**orjson.loads(value)))
        return total

    async def _write_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(WRITE_S)
            with contextlib.suppress(StoreError):
                await self._write()

    async def _write(self) -> None:
        for (key, number), day in list(self._days.items()):
            if day.changed:
                day.changed = False
                try:
                    name = f"usage:{key}:{number}:{self._process}"
                    await self._store.put(name, orjson.dumps(asdict(day.own)), ttl=KEPT_S)
                except StoreError as error:
                    day.changed = True
                    logger.warning("usage is not written: %s", error)
                    raise
