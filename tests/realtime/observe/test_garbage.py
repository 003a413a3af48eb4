"""Everything is searched for cycles when no call is open, and else only when memory is at stake."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from realtime.observe.garbage import MOST, Garbage


class Ring:
    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()


async def begun(calls: int) -> Garbage:
    garbage = Garbage(lambda: calls)
    garbage.start()
    return garbage


def old_ring() -> weakref.ref[Ring]:
    """One that the searches of the young have passed over, and that nobody holds any more."""
    ring = Ring()
    gc.collect(1)
    return weakref.ref(ring)


async def test_without_calls_what_ended_calls_left_is_freed() -> None:
    garbage = await begun(0)
    ring = old_ring()
    assert ring() is not None
    garbage.look()
    assert ring() is None


async def test_while_calls_are_open_nothing_is_searched_until_much_was_added() -> None:
    garbage = await begun(1)
    ring = old_ring()
    for _ in range(MOST - 2):
        gc.collect(1)
    garbage.look()
    assert ring() is not None
    gc.collect(1)
    garbage.look()
    assert ring() is None


async def test_what_was_there_at_the_start_is_never_searched_again() -> None:
    before = gc.get_freeze_count()
    await begun(1)
    assert gc.get_freeze_count() > before + 1000
    assert gc.get_threshold()[2] > 1_000_000
