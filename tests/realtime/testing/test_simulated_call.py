"""Simulated calls to agents of all kinds: words, tools and times, as a developer's tests would ask for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from realtime.agents import Agent, Call, Turn
from realtime.testing import Pace, SimulatedCall, calls
from realtime.testing.virtual_time import Stuck, VirtualLoop


def shop() -> Agent:
    agent = Agent("Be brief.", greeting="Hello.", filler="One moment.", filler_after=1.0)

    @agent.tool(timeout=10)
    async def look_up(thing: str) -> str:
        """What a thing costs."""
        await asyncio.sleep(3600 if thing == "never" else 4.0)
        return f"{thing} costs a pound"

    @agent.tool
    def at_once(number: int) -> int:
        """A plain function."""
        return number + 1

    return agent


def test_a_call_is_heard_word_by_word_and_takes_no_time() -> None:
    began = time.monotonic()
    with SimulatedCall(shop(), model=["It is open, all day."]) as call:
        assert call.hears() == "Hello."
        call.says("Are you open?")
        assert call.hears(words=2) == "It is"
        assert call.hears() == "open, all day."
        call.waits(600)
        assert call.now > 600
        assert call.heard == "Hello. It is open, all day."
        assert [said["role"] for said in call.transcript] == ["assistant", "user", "assistant"]
        # 500 ms of silence, then recogniser, model and voice.
        assert call.reply_seconds == pytest.approx(0.5 + 0.1 + 0.12 + 0.1, abs=0.15)
        assert call.ended is None
    assert call.ended == "remote_closed"
    assert time.monotonic() - began < 10


def test_tools_have_their_arguments_results_and_times() -> None:
    with SimulatedCall(shop(), model=[calls("look_up", thing="tea") & calls("at_once", number=2), "A pound."]) as call:
        call.hears()
        call.says("Tea?")
        assert call.hears() == "One moment. A pound."
    tea, plain = call.tools
    assert (tea.name, tea.arguments, tea.result) == ("look_up", {"thing": "tea"}, "tea costs a pound")
    assert (plain.name, plain.result) == ("at_once", "3")
    assert tea.ended is not None
    assert tea.ended - tea.began == pytest.approx(4.0, abs=0.1)


def test_a_tool_that_takes_too_long_is_told_to_the_model() -> None:
    with SimulatedCall(shop(), model=[calls("look_up", thing="never"), "I cannot say."]) as call:
        call.hears()
        call.says("Tea?")
        assert call.hears() == "One moment. I cannot say."
    assert "10" in str(call.tools[0].result)


def test_the_same_call_goes_the_same_way_twice() -> None:
    def times() -> list[tuple[str, float]]:
        with SimulatedCall(shop(), model=[calls("look_up", thing="tea"), "A pound, as ever."]) as call:
            call.hears()
            call.says("Tea?")
            call.hears(words=4)
            call.says("Stop.")
            call.waits(3)
            return [(event["type"], event["at"]) for event in call.events]

    assert times() == times()


def test_a_developers_own_turn_answers_and_is_closed_by_an_interruption() -> None:
    closed: list[str] = []
    agent = Agent("Be brief.")

    @agent.turn
    async def answer(turn: Turn) -> AsyncIterator[str]:
        try:
            for number in range(1000):
                yield f"{turn.text} {number}. "
                await asyncio.sleep(0.1)
        finally:
            closed.append(turn.text)

    with SimulatedCall(agent) as call:
        call.says("Count")
        assert call.hears(words=4) == "Count 0. Count 1."
        call.says("Again")
        assert call.hears(words=4) == "Again 0. Again 1."
        assert "Count" in closed
        call.hangs_up()
        call.waits(3.0)
    assert len(closed) == 2


def test_hooks_keys_and_the_end() -> None:
    seen: list[object] = []
    agent = Agent("Be brief.", greeting="Hello {{name}}.")

    @agent.on_call_start
    async def start(call: Call) -> None:
        call.variables["name"] = "Ada"
        seen.append(call.caller.number)

    @agent.on_key
    async def pressed(call: Call, key: str) -> None:
        seen.append(key)
        if key == "#":
            call.say("Goodbye.")
            call.hang_up()

    @agent.on_call_end
    async def end(call: Call, record: dict[str, object]) -> None:
        seen.append(record["reason"])

    with SimulatedCall(agent) as call:
        assert call.hears() == "Hello Ada."
        call.presses("1#")
        assert call.hears() == "Goodbye."
        call.waits(1)
        assert call.ended == "agent_hangup"
        with pytest.raises(AssertionError, match="the call is over"):
            call.hears()
    assert seen == ["+15550100", "1", "#", "agent_hangup"]


def test_what_does_not_come_is_told_with_what_did() -> None:
    with SimulatedCall(shop(), model=[], pace=Pace(word=0.1)) as call:
        call.hears()
        call.says("Anybody there?")
        with pytest.raises(AssertionError, match=r"the caller heard 0 words.*Anybody there.*error: the script has 0"):
            call.hears(within=5)


def test_a_function_of_the_request_may_be_the_model() -> None:
    with SimulatedCall(shop(), model=lambda request: f"You said {request.messages[-1].content}") as call:
        call.hears()
        call.says("one")
        assert call.hears() == "You said one"
        call.says("two")
        assert call.hears() == "You said two"


def test_threads_and_sleeps_take_no_time_and_nothing_waits_for_ever() -> None:
    loop = VirtualLoop()

    async def work() -> float:
        began = time.monotonic()
        await asyncio.sleep(1000)
        assert await asyncio.to_thread(lambda: 7) == 7
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(50):
                await asyncio.Event().wait()
        return time.monotonic() - began

    real = time.monotonic
    assert loop.run(work()) == pytest.approx(1050)
    assert time.monotonic is real
    loop.close()


@pytest.mark.timeout(60)
def test_a_call_that_waits_for_nothing_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("realtime.testing.virtual_time._IDLE_BREATHS", 3)
    loop = VirtualLoop()
    with pytest.raises(Stuck):
        loop.run(asyncio.Event().wait())
    loop.close()


def test_mistakes_in_a_test_are_told_in_words(caplog: pytest.LogCaptureFixture) -> None:
    agent = Agent("Help.")

    @agent.tool
    def look_up() -> str:
        """Looks it up."""
        pytest.fail("like any other error of a tool's")

    with pytest.raises(TypeError, match="an Agent, or to a list of them, not to <module"):
        SimulatedCall(pytest)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a list of answers: model=\\['Sorry"):
        SimulatedCall(agent, model="Sorry.")
    with pytest.raises(RuntimeError, match="write `with SimulatedCall"):
        SimulatedCall(agent).says("Hello.")
    with SimulatedCall(agent, model=[calls("look_at")]) as call:
        call.says("Look.")
        with pytest.raises(AssertionError):
            call.hears(within=3)
    assert "the script calls the tool 'look_at', and there are: look_up" in caplog.text
    with SimulatedCall(agent, model=[calls("look_up"), "It failed."]) as call:
        call.says("Look.")
        assert call.hears() == "It failed."
