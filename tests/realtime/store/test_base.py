"""What every store does: the same tests on each."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from realtime.store.base import MAX_KEY_CHARS, MAX_VALUE_BYTES, Store, StoreError
from realtime.store.memory import MemoryStore
from realtime.store.sqlite import SqliteStore


async def test_what_was_put_is_there_and_replaced_by_the_next(store):
    assert await store.get("a") is None
    await store.put("a", b"1")
    await store.put("a", b"\x00\xff" * 10)
    assert await store.get("a") == b"\x00\xff" * 10


async def test_empty_and_largest_values_are_kept(store):
    for value in (b"", b"x" * MAX_VALUE_BYTES):
        await store.put("k" * MAX_KEY_CHARS, value)
        assert await store.get("k" * MAX_KEY_CHARS) == value


async def test_an_entry_is_gone_at_its_expiry_and_not_before(store, clock):
    await store.put("a", b"1", ttl=10)
    clock.now += 9.99
    assert await store.get("a") == b"1"
    clock.now += 0.01
    assert await store.get("a") is None
    assert await store.scan("") == []
    assert await store.delete("a") is False


async def test_a_put_replaces_the_expiry_too(store, clock):
    await store.put("a", b"1", ttl=10)
    await store.put("a", b"2")
    clock.now += 100
    assert await store.get("a") == b"2"
    await store.put("a", b"3", ttl=10)
    clock.now += 10
    assert await store.get("a") is None


async def test_add_sets_only_what_is_absent_or_expired(store, clock):
    assert await store.add("a", b"1", ttl=10)
    assert not await store.add("a", b"2", ttl=1000)
    assert await store.get("a") == b"1"
    clock.now += 10
    assert await store.add("a", b"3", ttl=5)
    assert await store.get("a") == b"3"
    clock.now += 5
    assert await store.get("a") is None
    assert await store.add("a", b"4")
    clock.now += 1e6
    assert not await store.add("a", b"5")


async def test_of_many_adds_at_once_one_wins(store):
    results = await asyncio.gather(*(store.add("token:used:x", b"%d" % n, ttl=60) for n in range(200)))
    assert results.count(True) == 1
    assert await store.get("token:used:x") == b"%d" % results.index(True)


async def test_delete_says_whether_it_was_there(store):
    await store.put("a", b"1")
    assert await store.delete("a") is True
    assert await store.delete("a") is False
    assert await store.get("a") is None


async def test_scan_gives_one_prefix_in_key_order(store):
    for key in ("b:2", "b:10", "b", "a:1", "c:1", "b;", "b:", "B:1", "b:~", "~"):
        await store.put(key, key.encode())
    assert [key for key, _ in await store.scan("b:")] == ["b:", "b:10", "b:2", "b:~"]
    assert [key for key, _ in await store.scan("b:", limit=2)] == ["b:", "b:10"]
    assert [key for key, _ in await store.scan("~")] == ["~"]
    assert len(await store.scan("")) == 10
    assert (await store.scan("a"))[0] == ("a:1", b"a:1")


async def test_an_underscore_or_percent_in_a_prefix_is_itself(store):
    await store.put("a_b", b"1")
    await store.put("axb", b"2")
    await store.put("a%b", b"3")
    assert await store.scan("a_") == [("a_b", b"1")]
    assert await store.scan("a%") == [("a%b", b"3")]


async def test_a_counter_counts_and_keeps_its_first_expiry(store, clock):
    assert await store.increment("n", ttl=10) == 1
    clock.now += 6
    assert await store.increment("n", ttl=10) == 2
    assert await store.get("n") == b"2"
    clock.now += 4
    assert await store.increment("n", ttl=10) == 1


async def test_no_increment_is_lost(store):
    counts = await asyncio.gather(*(store.increment("n", ttl=60) for _ in range(100)))
    assert sorted(counts) == list(range(1, 101))


async def test_counting_something_else_is_an_error_that_changes_nothing(store):
    await store.put("n", b"12 apples")
    with pytest.raises(StoreError, match="no counter"):
        await store.increment("n", ttl=60)
    assert await store.get("n") == b"12 apples"
    await store.put("m", b"1")
    assert await store.get("m") == b"1"


@pytest.mark.parametrize("key", ["", "a b", "é", "a\n", "\x7f", "x" * (MAX_KEY_CHARS + 1)])
async def test_a_key_that_is_none_is_refused_everywhere(store, key):
    for call in (
        store.get(key),
        store.put(key, b""),
        store.add(key, b""),
        store.delete(key),
        store.increment(key, ttl=1),
    ):
        with pytest.raises(StoreError):
            await call


@pytest.mark.parametrize("ttl", [0, -1, float("nan"), float("inf"), 1e12])
async def test_a_ttl_that_is_none_is_refused_everywhere(store, ttl):
    for call in (store.put("a", b"", ttl=ttl), store.add("a", b"", ttl=ttl), store.increment("a", ttl=ttl)):
        with pytest.raises(StoreError):
            await call
    assert await store.get("a") is None


async def test_too_large_a_value_or_scan_is_refused(store):
    with pytest.raises(StoreError):
        await store.put("a", b"x" * (MAX_VALUE_BYTES + 1))
    with pytest.raises(StoreError):
        await store.add("a", b"x" * (MAX_VALUE_BYTES + 1))
    with pytest.raises(StoreError):
        await store.put("a", "text")
    for limit in (0, -1, 1_000_000):
        with pytest.raises(StoreError):
            await store.scan("", limit=limit)


async def test_a_closed_store_says_so_and_closes_twice(store):
    await store.close()
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.get("a")


async def test_expired_entries_are_removed_by_later_writes(store, clock):
    for n in range(300):
        await store.put(f"old:{n}", b"x", ttl=1)
    clock.now += 2
    for n in range(300):
        await store.put(f"new:{n}", b"x", ttl=100)
    # Turned back, the clock would show what is still kept.
    clock.now -= 2
    assert await store.scan("old:") == []
    assert len(await store.scan("new:")) == 300


KEYS = st.sampled_from(["a", "a:1", "a:2", "b", "b:1", "~"])
TTLS = st.one_of(st.none(), st.sampled_from([1.0, 5.0, 60.0]))


class AnyStore(RuleBasedStateMachine):
    """A store against a dictionary, over random calls and jumps of the clock."""

    def make(self) -> Store:
        raise NotImplementedError

    @initialize()
    def start(self) -> None:
        self.now = 1_800_000_000.0
        self.model: dict[str, tuple[bytes, float | None]] = {}
        self.runner = asyncio.Runner()
        self.store = self.make()

    def call(self, awaitable):
        return self.runner.run(awaitable)

    def live(self, key: str) -> bytes | None:
        value, expires_at = self.model.get(key, (None, None))
        return value if expires_at is None or expires_at > self.now else None

    def set(self, key: str, value: bytes, ttl: float | None) -> None:
        self.model[key] = (value, None if ttl is None else self.now + ttl)

    @rule(seconds=st.sampled_from([0.5, 1.0, 4.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(key=KEYS, value=st.binary(max_size=8), ttl=TTLS)
    def put(self, key: str, value: bytes, ttl: float | None) -> None:
        self.call(self.store.put(key, value, ttl=ttl))
        self.set(key, value, ttl)

    @rule(key=KEYS, value=st.binary(max_size=8), ttl=TTLS)
    def add(self, key: str, value: bytes, ttl: float | None) -> None:
        absent = self.live(key) is None
        assert self.call(self.store.add(key, value, ttl=ttl)) is absent
        if absent:
            self.set(key, value, ttl)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        assert self.call(self.store.delete(key)) is (self.live(key) is not None)
        self.model.pop(key, None)

    @rule(key=KEYS.map(lambda key: "count:" + key), ttl=st.sampled_from([1.0, 5.0]))
    def increment(self, key: str, ttl: float) -> None:
        old = self.live(key)
        count = self.call(self.store.increment(key, ttl=ttl))
        assert count == int(old or 0) + 1
        self.model[key] = (b"%d" % count, self.model[key][1] if old is not None else self.now + ttl)

    @rule(prefix=st.sampled_from(["", "a", "a:", "count:", "~"]), limit=st.integers(1, 5))
    def scan(self, prefix: str, limit: int) -> None:
        expected = [
            (key, self.live(key)) for key in sorted(self.model) if key.startswith(prefix) and self.live(key) is not None
        ]
        assert self.call(self.store.scan(prefix, limit=limit)) == expected[:limit]

    @invariant()
    def agrees(self) -> None:
        for key in list(self.model):
            assert self.call(self.store.get(key)) == self.live(key)

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.call(self.store.close())
            self.runner.close()


class InMemory(AnyStore):
    def make(self) -> Store:
        return MemoryStore(clock=lambda: self.now)


class InSqlite(AnyStore):
    def make(self) -> Store:
        self.folder = tempfile.TemporaryDirectory()
        return SqliteStore(Path(self.folder.name) / "store.db", clock=lambda: self.now)

    @rule()
    def reopen(self) -> None:
        self.call(self.store.close())
        self.store = SqliteStore(Path(self.folder.name) / "store.db", clock=lambda: self.now)

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "folder"):
            self.folder.cleanup()


_few = settings(max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TestInMemory = InMemory.TestCase
TestInMemory.settings = _few
TestInSqlite = InSqlite.TestCase
TestInSqlite.settings = _few
