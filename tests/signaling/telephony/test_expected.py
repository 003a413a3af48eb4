"""One-time tokens of announced calls: for one line, one call, one minute, once."""

from __future__ import annotations

import asyncio
import uuid

import pytest

from realtime.store.memory import MemoryStore
from signaling.errors import CallError
from signaling.telephony.carrier import Incoming
from signaling.telephony.expected import Expected

CALL = Incoming("CA1", "+1555", "+1666", "AC1", {"plan": "gold"})


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def expected() -> tuple[Expected, Clock]:
    clock = Clock()
    return Expected(MemoryStore(), clock=clock), clock


async def refused(house: Expected, line: str, token: str, call: str) -> str | None:
    with pytest.raises(CallError) as refusal:
        await house.open(line, token, call)
    assert (refusal.value.status, refusal.value.code) == (401, "call_not_expected")
    return refusal.value.reason


async def test_a_token_brings_back_what_was_announced() -> None:
    house, _ = expected()
    token = await house.announce("twilio", CALL)
    assert uuid.UUID(token).version == 4
    assert await house.open("twilio", token, "CA1") == CALL


async def test_a_token_works_once_even_for_two_at_the_same_time() -> None:
    house, _ = expected()
    token = await house.announce("twilio", CALL)
    results = await asyncio.gather(*(house.open("twilio", token, "CA1") for _ in range(5)), return_exceptions=True)
    assert sum(result == CALL for result in results) == 1
    assert all(isinstance(result, CallError) for result in results if result != CALL)


async def test_a_token_tried_wrongly_is_used_up() -> None:
    house, _ = expected()
    for line, call in (("telnyx", "CA1"), ("twilio", "CA2"), ("twilio", "")):
        token = await house.announce("twilio", CALL)
        assert await refused(house, line, token, call)
        assert await refused(house, "twilio", token, "CA1")


async def test_a_token_lasts_a_minute() -> None:
    house, clock = expected()
    token = await house.announce("twilio", CALL)
    clock.now += 61
    assert await refused(house, "twilio", token, "CA1") == "the token has expired"


async def test_a_call_is_opened_once() -> None:
    house, _ = expected()
    first, second = [await house.announce("twilio", CALL) for _ in range(2)]
    await house.open("twilio", first, "CA1")
    assert await refused(house, "twilio", second, "CA1") == "the call was opened before"
    with pytest.raises(CallError) as refusal:
        await house.announce("twilio", CALL)
    assert refusal.value.status == 409


async def test_without_a_call_id_the_token_alone_counts() -> None:
    """AudioSocket's dial plan knows no id."""
    house, _ = expected()
    token = await house.announce("audiosocket", Incoming("", "+1555"))
    assert (await house.open("audiosocket", token, "")).number == "+1555"


@pytest.mark.parametrize("token", ["", "nonsense", "x" * 10_000, "\ud800"])
async def test_what_is_no_token_opens_nothing(token: str) -> None:
    house, _ = expected()
    assert await refused(house, "twilio", token, "CA1") == "no such token"
