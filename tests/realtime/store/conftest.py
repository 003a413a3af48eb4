"""The stores under test, all over a clock that tests turn by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from realtime.store.base import Store
from realtime.store.memory import MemoryStore
from realtime.store.sqlite import SqliteStore


class WallClock:
    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, clock: WallClock, tmp_path: Path) -> AsyncIterator[Store]:
    made = MemoryStore(clock=clock) if request.param == "memory" else SqliteStore(tmp_path / "s.db", clock=clock)
    yield made
    await made.close()
