"""The part of a key-value store that this room needs, as a protocol; it never chooses or opens one.

Keys are ASCII with `:` between their parts, values are bytes of at most 1 MiB, expiry is wall clock
in seconds. Failures of the store itself pass through this room unchanged.
"""

from __future__ import annotations

from typing import Protocol


class Store(Protocol):
    async def get(self, key: str) -> bytes | None:
        """The value, or None when absent or expired."""

    async def put(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        """Set; `ttl` in seconds, None for ever."""

    async def add(self, key: str, value: bytes, *, ttl: float | None = None) -> bool:
        """Set only if absent, atomically over everyone who shares the store; False when it was there."""

    async def delete(self, key: str) -> bool:
        """Remove; whether it was there."""

    async def scan(self, prefix: str, *, limit: int = 1000) -> list[tuple[str, bytes]]:
        """Live entries whose key starts with `prefix`, in key order, at most `limit`."""

    async def increment(self, key: str, *, ttl: float) -> int:
        """Add one to a counter that lives `ttl` seconds from its first increment; the new value."""
