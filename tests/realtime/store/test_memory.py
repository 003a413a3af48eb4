"""The memory store's bounds."""

from __future__ import annotations

import pytest

from realtime.store.base import StoreError
from realtime.store.memory import MemoryStore


async def test_a_full_store_refuses_and_forgets_nothing_that_lives(clock):
    store = MemoryStore(max_entries=3, clock=clock)
    await store.put("a", b"1")
    await store.put("b", b"1", ttl=10)
    await store.put("c", b"1", ttl=20)
    for call in (store.put("d", b"1"), store.add("d", b"1"), store.increment("d", ttl=1)):
        with pytest.raises(StoreError, match="full"):
            await call
    await store.put("a", b"replaced")
    assert [key for key, _ in await store.scan("")] == ["a", "b", "c"]
    clock.now += 10
    assert await store.add("d", b"1")
    assert [key for key, _ in await store.scan("")] == ["a", "c", "d"]


async def test_bytes_are_bounded_and_given_back(clock):
    store = MemoryStore(max_bytes=100, clock=clock)
    await store.put("a", b"x" * 99)
    with pytest.raises(StoreError, match="full"):
        await store.put("b", b"x")
    with pytest.raises(StoreError, match="full"):
        await store.put("a", b"x" * 100)
    assert await store.get("a") == b"x" * 99
    await store.put("a", b"x" * 49, ttl=5)
    await store.put("b", b"x" * 49)
    await store.delete("b")
    await store.put("c", b"x" * 49)
    clock.now += 5
    await store.put("d", b"x" * 49)
    assert [key for key, _ in await store.scan("")] == ["c", "d"]
