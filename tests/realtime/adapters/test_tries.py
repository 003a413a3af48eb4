"""The retry loop of one-shot requests: order, rounds, deadline, Retry-After, breakers. Time is virtual."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from realtime.adapters import tries as module
from realtime.adapters.base import EngineError
from realtime.adapters.breaker import Breaker, BreakerState
from realtime.adapters.tries import Candidate, Tries


@dataclass
class World:
    """Engines are names; `script` says how each fails, in turn, before it answers."""

    script: dict[str, list[Exception]]
    now: float = 100.0
    slept: list[float] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    breakers: dict[str, Breaker] = field(default_factory=dict)

    def tries(self, seconds: float = 60.0, **values: object) -> Tries[str]:
        candidates = [Candidate(name, "m", name, self.breakers.setdefault(name, Breaker())) for name in self.script]
        return Tries(candidates, self.now + seconds, clock=lambda: self.now, random=lambda least, most: least, **values)

    async def work(self, name: str) -> str:
        self.tried.append(name)
        if self.script[name]:
            raise self.script[name].pop(0)
        return f"from {name}"

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., World]]:
    made: list[World] = []

    def make(**script: list[Exception]) -> World:
        made.append(World(script))
        # The module's own name only: servers of other tests may sleep in their threads.
        monkeypatch.setattr(module, "asyncio", SimpleNamespace(sleep=made[-1].sleep, timeout=asyncio.timeout))
        return made[-1]

    yield make
    monkeypatch.undo()


def error(code: str = "bad_response", *, retryable: bool = True, wait: float | None = None) -> EngineError:
    return EngineError("planned", code=code, retryable=retryable, retry_after=wait)


async def test_the_first_that_answers_ends_it(world: Callable[..., World]) -> None:
    one = world(a=[error()], b=[])
    tries = one.tries()
    candidate, result = await tries.first(one.work)
    assert (candidate.vendor, result) == ("b", "from b")
    assert [(each.vendor, each.status) for each in tries.log] == [("a", "bad_response"), ("b", "ok")]
    assert one.slept == []


async def test_a_second_round_follows_after_a_wait_and_no_third(world: Callable[..., World]) -> None:
    one = world(a=[error()] * 3, b=[error()] * 3)
    with pytest.raises(EngineError, match="planned"):
        await one.tries().first(one.work)
    assert one.tried == ["a", "b", "a", "b"]
    assert one.slept == [0.25, 0.25]


@pytest.mark.parametrize("code", ["bad_request", "text_too_long"])
async def test_the_requests_own_fault_ends_it(world: Callable[..., World], code: str) -> None:
    one = world(a=[error(code, retryable=False)], b=[])
    with pytest.raises(EngineError):
        await one.tries().first(one.work)
    assert one.tried == ["a"]


@pytest.mark.parametrize("code", ["auth_failed", "not_found"])
async def test_a_vendor_that_can_never_answer_is_not_asked_again(world: Callable[..., World], code: str) -> None:
    one = world(a=[error(code, retryable=False)], b=[error()])
    await one.tries().first(one.work)
    assert one.tried == ["a", "b", "b"]


async def test_retry_after_is_waited_for_when_it_fits(world: Callable[..., World]) -> None:
    one = world(a=[error("rate_limited", wait=7.0)])
    await one.tries().first(one.work)
    assert one.slept == [7.0]


async def test_and_ends_it_when_it_does_not(world: Callable[..., World]) -> None:
    one = world(a=[error("rate_limited", wait=90.0)])
    with pytest.raises(EngineError) as caught:
        await one.tries().first(one.work)
    assert caught.value.retry_after == 90.0
    assert one.tried == ["a"]


async def test_a_rate_limit_rests_the_vendor_and_opens_no_breaker(world: Callable[..., World]) -> None:
    one = world(a=[error("rate_limited", wait=30.0)] * 20, b=[])
    for _ in range(8):
        await one.tries().first(one.work)
    assert one.tried.count("a") == 1
    assert one.breakers["a"].state is BreakerState.CLOSED
    one.now += 31
    await one.tries().first(one.work)
    assert one.tried.count("a") == 2


async def test_when_nobody_is_well_all_are_tried(world: Callable[..., World]) -> None:
    one = world(a=[], b=[])
    for name in ("a", "b"):
        one.breakers[name] = Breaker()
        for _ in range(5):
            one.breakers[name].failed(one.now)
    assert (await one.tries().first(one.work))[1] == "from a"


async def test_a_time_out_of_what_must_not_be_done_twice_ends_it(world: Callable[..., World]) -> None:
    one = world(a=[error("timeout")], b=[])
    with pytest.raises(EngineError):
        await one.tries(repeatable=False).first(one.work)
    assert one.tried == ["a"]
    again = world(a=[error("timeout")], b=[])
    assert (await again.tries().first(again.work))[1] == "from b"


async def test_no_try_begins_after_the_deadline(world: Callable[..., World]) -> None:
    one = world(a=[], b=[])
    with pytest.raises(EngineError) as caught:
        await one.tries(0.0).first(one.work)
    assert caught.value.code == "deadline"
    assert one.tried == []


async def test_what_is_given_up_is_no_failure(world: Callable[..., World]) -> None:
    one = world(a=[])

    begun = asyncio.Event()

    async def hang(name: str) -> str:
        begun.set()
        await asyncio.Event().wait()
        return name

    task = asyncio.create_task(one.tries().first(hang))
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert one.breakers["a"].healthy(one.now)


def test_more_than_half_of_the_recent_ten_opens_the_breaker_and_a_success_closes_it() -> None:
    breaker = Breaker()
    for at in range(12):
        breaker.failed(float(at)) if at % 2 else breaker.succeeded(float(at))
    assert breaker.state is BreakerState.CLOSED
    breaker.failed(12.0)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.healthy(13.0)
    assert breaker.healthy(28.0)
    assert breaker.allows(28.0)
    assert not breaker.healthy(28.0), "one probe at a time"
    breaker.succeeded(29.0)
    assert breaker.healthy(29.0)


def test_failures_long_ago_do_not_count() -> None:
    breaker = Breaker()
    for at in range(20):
        breaker.failed(at * 40.0)
        breaker.succeeded(at * 40.0 + 1)
    assert breaker.state is BreakerState.CLOSED
