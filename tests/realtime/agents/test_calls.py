"""One call and the agents that answer it, in virtual time: what is handed over, and a hang-up that is withdrawn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from realtime.agents import Agent, Call, Turn
from realtime.testing import SimulatedCall, calls


def patient(name: str, filler: str | None, seconds: float) -> Agent:
    """An agent whose tool takes a while."""
    agent = Agent(name=name, filler=filler, filler_after=seconds)

    @agent.tool
    async def look_up() -> str:
        """Looks it up."""
        await asyncio.sleep(6.0)
        return "found"

    return agent


@pytest.mark.parametrize(
    ("filler", "heard"), [("The second looks.", "The second looks. It is here."), (None, "It is here.")]
)
def test_who_takes_over_fills_the_silence_in_its_own_way(filler: str | None, heard: str) -> None:
    first, second = patient("first", "The first looks.", 1.0), patient("second", filler, 2.0)

    @first.tool
    async def pass_on() -> Agent:
        """Passes the caller on."""
        return second

    model = [calls("look_up"), "It is there.", calls("pass_on"), "Here I am.", calls("look_up"), "It is here."]
    with SimulatedCall([first, second], model=model) as call:
        call.says("Look it up.")
        assert call.hears() == "The first looks. It is there."
        call.says("Pass me on.")
        assert call.hears() == "Here I am."
        call.says("Look it up.")
        assert call.hears() == heard


@pytest.mark.parametrize("greeting", ["Sales here!", None])
@pytest.mark.parametrize("returned", [True, False])
def test_who_takes_over_begins_once_with_its_greeting_or_by_answering(greeting: str | None, returned: bool) -> None:
    reception, sales = Agent("Ask."), Agent("Sell.", name="sales", greeting=greeting)

    @reception.tool
    async def connect(call: Call) -> Agent | str:
        """Connects the caller with sales."""
        if returned:
            return sales
        call.hand_over(sales, summary="The caller wants a boat.")
        return "Connected."

    with SimulatedCall([reception, sales], model=[calls("connect"), "Red or blue?", "What else?"]) as call:
        call.says("A boat, please.")
        assert call.hears() == (greeting or "Red or blue?")
        call.waits(20)
        assert call.heard == (greeting or "Red or blue?"), "and nothing more"
        assert call.model is not None
        assert [request.messages[0].content for request in call.model.asked] == [
            "Ask.",
            *([] if greeting else ["Sell."]),
        ]


def leaving() -> Agent:
    agent = Agent()

    @agent.turn
    async def answer(turn: Turn) -> AsyncIterator[str]:
        if "goodbye" in turn.text.lower():
            turn.hang_up()
            yield "Goodbye, it was very good to talk to you, and do call again."
        else:
            yield "Of course."

    return agent


def test_a_hang_up_is_withdrawn_when_the_caller_talks_over_the_goodbye() -> None:
    with SimulatedCall(leaving()) as call:
        call.says("Goodbye.")
        assert call.hears(words=3) == "Goodbye, it was"
        call.says("Wait, one more thing.")
        assert call.hears().endswith("Of course.")
        call.waits(30)
        assert call.ended is None
        call.says("Goodbye.")
        call.hears()
        call.waits(2)
        assert call.ended == "agent_hangup"


def test_a_cough_does_not_withdraw_it() -> None:
    with SimulatedCall(leaving()) as call:
        call.says("Goodbye.")
        assert call.hears(words=3) == "Goodbye, it was"
        call.says("")
        assert call.hears().endswith("do call again.")
        call.waits(2)
        assert call.ended == "agent_hangup"


@pytest.mark.parametrize("seconds", [0.0, 3.0])
@pytest.mark.parametrize("greeting", ["Sales here!", None])
@pytest.mark.parametrize("how", ["returned", "called", "called in a thread"])
def test_a_tool_that_answers_later_and_hands_over_is_answered_once(
    greeting: str | None, how: str, seconds: float
) -> None:
    reception, sales = Agent("Ask."), Agent("Sell.", name="sales", greeting=greeting)

    async def later(call: Call) -> Agent | str:
        await asyncio.sleep(seconds)
        if how == "returned":
            return sales
        call.hand_over(sales)
        return "Connected."

    async def threaded(call: Call) -> str:
        await asyncio.sleep(seconds)
        await asyncio.to_thread(call.hand_over, sales)
        return "Connected."

    reception.tool(threaded if how.endswith("thread") else later, later=True, name="connect")
    with SimulatedCall([reception, sales], model=[calls("connect"), "I see.", "Here I am.", "Too much."]) as call:
        call.says("I want a boat.")
        call.waits(20)
        said = [line["text"].strip() for line in call.transcript if line["role"] == "assistant"]
    assert said == ["I see.", greeting or "Here I am."]
