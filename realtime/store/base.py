"""One small store for everything that must outlive a request: used tokens, keys, sessions.

A flat key space with expiry. Keys are ASCII with `:` between their parts (`token:used:JTI`); values
are bytes of at most 1 MiB. Expiry is wall clock, since it must hold over a restart. Implementations:
`memory.py`, `sqlite.py`; the same tests run on each.
"""

from __future__ import annotations

from typing import Protocol

MAX_VALUE_BYTES = 1 << 20
MAX_KEY_CHARS = 512


class StoreError(Exception):
    """The store could not do what was asked (disk full, connection lost, value too large)."""


class Store(Protocol):
    async def get(self, key: str) -> bytes | None:
        """The value, or None when absent or expired."""

    async def put(self, key: str, value: bytes, *, ttl: float | None = None) -> None:
        """Set; `ttl` in seconds, None for ever."""

    async def add(self, key: str, value: bytes, *, ttl: float | None = None) -> bool:
        """Set only if absent. Atomic over everyone who shares the store; False when it was there."""

    async def delete(self, key: str) -> bool:
        """Remove; whether it was there."""

    async def scan(self, prefix: str, *, limit: int = 1000) -> list[tuple[str, bytes]]:
        """Live entries whose key starts with `prefix`, in key order, at most `limit`."""

    async def increment(self, key: str, *, ttl: float) -> int:
        """Add one to a counter (made with `ttl` when absent; later calls keep its expiry); the new value."""

    async def close(self) -> None: ...
