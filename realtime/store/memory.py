"""The store in this process's memory: for development, tests, and servers that may forget on restart.

Bounded in entries and in bytes. When it is full and nothing has expired it refuses new entries with
`StoreError`: it never evicts a live one, since a forgotten "used" record would let a token in twice.
The keys and the expiries are sorted lists: at the bound an insertion moves 0.8 MB, some 0.05 ms.
"""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from collections.abc import Callable

from realtime.store.base import StoreError
from realtime.store.checks import check_key, check_limit, check_prefix, check_ttl, check_value, next_count

MAX_ENTRIES = 100_000
MAX_BYTES = 256 << 20
"""Of keys and values together; Python's own overhead (some 300 bytes an entry) comes on top."""
_PURGE_PER_CALL = 64
"""Expired entries removed by one call. Each call adds one entry at most, so expired ones cannot pile up."""


class MemoryStore:
    """`clock`: unix seconds; injectable, since expiry is wall clock."""

    def __init__(
        self, *, max_entries: int = MAX_ENTRIES, max_bytes: int = MAX_BYTES, clock: Callable[[], float] = time.time
    ) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._clock = clock
        self._entries: dict[str, tuple[bytes, float | None]] = {}
        self._order: list[str] = []
        self._expiries: list[tuple[float, str]] = []
        self._bytes = 0
        self._closed = False

    async def get(self, key: str) -> bytes | None:
        check_key(key)
        entry = self._live(key, self._now())
        return None if entry is None else entry[0]

    async def put(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        check_key(key)
        check_value(value)
        check_ttl(ttl)
        now = self._now()
        self._set(key, value, None if ttl is None else now + ttl)

    async def add(self, key: str, value: bytes, *, ttl: float | None = None) -> bool:
        check_key(key)
        check_value(value)
        check_ttl(ttl)
        now = self._now()
        if self._live(key, now) is not None:
            return False
        self._set(key, value, None if ttl is None else now + ttl)
        return True

    async def delete(self, key: str) -> bool:
        check_key(key)
        was_there = self._live(key, self._now()) is not None
        self._remove(key)
        return was_there

    async def scan(self, prefix: str, *, limit: int = 1000) -> list[tuple[str, bytes]]:
        check_prefix(prefix)
        check_limit(limit)
        now = self._now()
        found: list[tuple[str, bytes]] = []
        for index in range(bisect_left(self._order, prefix), len(self._order)):
            key = self._order[index]
            if len(found) >= limit or not key.startswith(prefix):
                break
            entry = self._live(key, now)
            if entry is not None:
                found.append((key, entry[0]))
        return found

    async def increment(self, key: str, *, ttl: float) -> int:
        check_key(key)
        check_ttl(ttl)
        now = self._now()
        entry = self._live(key, now)
        count = next_count(key, entry[0] if entry else None)
        self._set(key, b"%d" % count, entry[1] if entry else now + ttl)
        return count

    async def close(self) -> None:
        self._closed = True
        self._entries.clear()
        self._order.clear()
        self._expiries.clear()
        self._bytes = 0

    def _now(self) -> float:
        """The time, after some expired entries have gone."""
        if self._closed:
            raise StoreError("The store is closed.")
        now = self._clock()
        expired = [key for expires_at, key in self._expiries[:_PURGE_PER_CALL] if expires_at <= now]
        del self._expiries[: len(expired)]
        for key in expired:
            self._forget(key)
        return now

    def _live(self, key: str, now: float) -> tuple[bytes, float | None] | None:
        entry = self._entries.get(key)
        if entry is None or (entry[1] is not None and entry[1] <= now):
            return None
        return entry

    def _set(self, key: str, value: bytes, expires_at: float | None) -> None:
        old = self._entries.get(key)
        size = self._bytes + len(value) + (len(key) if old is None else -len(old[0]))
        if (old is None and len(self._entries) >= self._max_entries) or size > self._max_bytes:
            raise StoreError("The store is full.")
        self._remove(key)
        insort(self._order, key)
        self._entries[key] = (value, expires_at)
        self._bytes += len(key) + len(value)
        if expires_at is not None:
            insort(self._expiries, (expires_at, key))

    def _remove(self, key: str) -> None:
        entry = self._entries.get(key)
        if entry is None:
            return
        if entry[1] is not None:
            del self._expiries[bisect_left(self._expiries, (entry[1], key))]
        self._forget(key)

    def _forget(self, key: str) -> None:
        """Remove an entry whose expiry is off the list."""
        value, _ = self._entries.pop(key)
        self._bytes -= len(key) + len(value)
        del self._order[bisect_left(self._order, key)]
