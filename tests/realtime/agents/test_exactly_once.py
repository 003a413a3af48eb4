"""Tools with side effects in whole simulated calls, cut, pressed, waited out and hung up at random moments.

The server's own conversation, session and tool runner, under the virtual clock: whatever happens, a tool that
was begun ran once, ended once unless it wants to be cancelled, and its result is in the transcript once at most.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from itertools import cycle

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realtime.adapters.base import ChatRequest
from realtime.agents import Agent, Call
from realtime.testing import SimulatedCall, calls

Step = tuple[str, float]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("says"), st.floats(0.0, 6.0)),
        st.tuples(st.just("waits"), st.floats(0.1, 8.0)),
        st.tuples(st.just("presses"), st.floats(0.0, 1.0)),
    ),
    min_size=1,
    max_size=7,
)


class Effects:
    """What the tools did, by the number that the model gave each call."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()
        self.done: Counter[int] = Counter()
        self.cancelled: Counter[int] = Counter()

    async def work(self, number: int, seconds: float) -> str:
        self.begun[number] += 1
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.cancelled[number] += 1
            raise
        self.done[number] += 1
        return f"result {number}."


def agent(effects: Effects, seconds: float) -> Agent:
    made = Agent("Work.", filler="One moment.", filler_after=0.7, keys_as_turns=True)

    @made.tool(timeout=100)
    async def finish(call: Call, number: int) -> str:
        return await effects.work(number, seconds)

    @made.tool(timeout=100, on_cut="cancel")
    async def cancel(call: Call, number: int) -> str:
        return await effects.work(number, seconds)

    @made.tool(timeout=100, later=True)
    async def later(call: Call, number: int) -> str:
        return await effects.work(number, seconds)

    return made


def model(names: list[str]) -> Callable[[ChatRequest], object]:
    """Calls the next tool, then talks, by turns; every call has a number of its own."""
    asked, turns = iter(enumerate(names)), cycle([True, False])

    def answer(request: ChatRequest) -> object:
        following = next(asked, None) if next(turns) else None
        if following is None:
            return "Well, then I will tell you something about it that takes a while."
        return calls(following[1], number=following[0])

    return answer


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(
    happens=steps,
    names=st.lists(st.sampled_from(["finish", "cancel", "later"]), min_size=1, max_size=6),
    seconds=st.sampled_from([0.0, 0.5, 2.0, 7.0]),
    hangs_up=st.booleans(),
)
def test_a_tool_that_was_begun_runs_once(happens: list[Step], names: list[str], seconds: float, hangs_up: bool) -> None:
    effects = Effects()
    with SimulatedCall(agent(effects, seconds), model=model(names)) as call:  # type: ignore[arg-type]
        call.says("Begin.")
        for what, at in happens:
            if what == "says":
                call.waits(at)
                call.says("And then?")
            elif what == "presses":
                call.waits(at)
                call.presses("1#")
            else:
                call.waits(at)
        if hangs_up:
            call.hangs_up()
        call.waits(40)
        text = str([event for event in call.events if event["type"] == "conversation.item.done"])
    assert all(count == 1 for count in effects.begun.values()), effects.begun
    assert effects.begun == effects.done + effects.cancelled, "whatever begins ends"
    assert {names[number] for number in effects.cancelled} <= {"cancel"}
    for number in effects.done:
        times = text.count(f"result {number}.")
        assert times <= 1
        assert times == 1 or hangs_up or names[number] == "cancel"
