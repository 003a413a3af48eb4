"""Whether the store can be written: tried on a full one, not more often than it may be, and never waited for."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from realtime.store import writable
from realtime.store.base import StoreError
from realtime.store.memory import MemoryStore
from realtime.store.sqlite import SqliteStore
from realtime.store.writable import EVERY_S, Writable


class Counted(MemoryStore):
    """`hangs`: nothing that is added ever arrives."""

    def __init__(self) -> None:
        super().__init__()
        self.tried = 0
        self.hangs = False

    async def add(self, key: str, value: bytes, *, ttl: float | None = None) -> bool:
        self.tried += 1
        if self.hangs:
            await asyncio.Event().wait()
        return await super().add(key, value, ttl=ttl)


async def test_a_full_file_is_found_out_and_room_in_it_too(tmp_path: Path) -> None:
    now = 0.0
    store = SqliteStore(tmp_path / "s.sqlite3", max_bytes=256 << 10)
    asks = Writable(store, lambda: now)
    assert await asks()
    with suppress(StoreError):
        for number in range(1000):
            await store.add(f"call:{number}", b"x" * 4000)
    now += EVERY_S
    assert not await asks()
    for number in range(10):
        await store.delete(f"call:{number}")
    assert not await asks(), "it is not tried so soon"
    now += EVERY_S
    assert await asks()
    await store.add("call:new", b"x" * 8000)
    assert await store.scan("probe:") == []
    await store.close()


async def test_however_often_it_is_asked_it_tries_once_in_some_seconds() -> None:
    now, store = 0.0, Counted()
    asks = Writable(store, lambda: now)
    assert all(await asyncio.gather(*(asks() for _ in range(100))))
    now += EVERY_S - 0.1
    await asks()
    assert store.tried == 1
    now += 0.1
    await asks()
    assert store.tried == 2


async def test_a_disk_that_hangs_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(writable, "PATIENCE_S", 0.01)
    now, store = 0.0, Counted()
    store.hangs = True
    asks = Writable(store, lambda: now)
    assert not await asks()
    now += EVERY_S
    assert not await asks()
    assert caplog.text.count("cannot be written") == 1, "told once"
