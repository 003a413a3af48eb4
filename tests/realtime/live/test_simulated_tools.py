"""Tools that run on the server, in simulated calls: interrupted, cancelled, deferred and cut off at random moments.

Whatever happens, a tool is asked for once for a call id, the model is told of every result once, and never
reads a call without its output.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realtime.adapters.base import ChatEnd, ChatRequest, TextDelta, Tool, ToolCallDelta, Usage
from realtime.live.agent import Filler, ServerTool
from realtime.live.effects import (
    CancelTool,
    ChatProduced,
    Effect,
    EndCall,
    HandOver,
    HangUp,
    KeysPressed,
    RunTool,
    SayText,
    Think,
    ToolReturned,
)
from tests.realtime.live.simulation import EnginePlan, Simulation

TOOLS = (
    ServerTool(Tool("finish")),
    ServerTool(Tool("cancel"), on_cut="cancel"),
    ServerTool(Tool("later"), later=True),
    ServerTool(Tool("bye"), farewell=True),
)
CLIENT_TOOL = {"type": "function", "name": "client", "parameters": {"type": "object", "properties": {}}}
NAMES = ["finish", "cancel", "later", "bye", "client"]


class ToolSimulation(Simulation):
    """The model calls what `calls` says, one entry an answer, then talks. `seconds`: how long each tool takes.

    Every second call id is one that the vendor has given before.
    """

    def __init__(self, seed: int, plan: EnginePlan, calls: list[list[str]], seconds: float) -> None:
        self.calls, self.seconds = list(calls), seconds
        self.runs: list[RunTool] = []
        self.cancelled: set[str] = set()
        self.requests: list[ChatRequest] = []
        self.returned: set[str] = set()
        self.over = False
        super().__init__(seed, plan, filler=Filler("One moment.", 0.5))
        self.conversation.config.server_tools = TOOLS
        self.client(type="session.update", session={"type": "realtime", "tools": [CLIENT_TOOL]})

    def _think(self, effect: Think) -> None:
        self.requests.append(effect.request)
        if not any(item.fresh for item in self.conversation.history):
            known = {asked.id for message in effect.request.messages for asked in message.tool_calls}
            assert known >= {run.call.id for run in self.runs}, "the model would call again what it does not see"
        if not self.calls or effect.request.tool_choice == "none":
            super()._think(effect)
            return
        wanted, delay = self.calls.pop(0), 0.0
        if self.random.random() < 0.5:
            self.at(0.01, ChatProduced(effect.generation, TextDelta("I look. ")))
        for index, name in enumerate(wanted):
            delay += self._jitter(self.plan.token_delay)
            given = "call_again" if index % 2 else f"call_{effect.generation}_{index}"
            self.at(delay, ChatProduced(effect.generation, ToolCallDelta(index, "{}", given, name)))
        ending = ChatEnd("tool_calls" if wanted else "stop", Usage(3, 1))
        self.at(delay + 0.01, ChatProduced(effect.generation, ending))

    def _carry_out(self, effects: list[Effect]) -> None:
        super()._carry_out(effects)
        for effect in effects:
            match effect:
                case RunTool():
                    self.runs.append(effect)
                    call_id = effect.call.id
                    self.at(self._jitter(self.seconds), lambda call_id=call_id: self._return(call_id))
                case CancelTool():
                    self.cancelled.add(effect.call_id)
                case EndCall():
                    self.over = True

    def _return(self, call_id: str) -> None:
        if call_id not in self.cancelled and not self.over:
            self.returned.add(call_id)
            self.tell(ToolReturned(call_id, f"result of {call_id}"))

    def answer_for_the_client(self) -> None:
        """Give the output of every call of the client's that waits for one, and ask for an answer."""
        answered = {item.call_id for item in self.conversation.history if item.type == "function_call_output"}
        waiting = [
            item.call_id
            for item in self.conversation.history
            if item.type == "function_call" and item.name == "client" and item.call_id not in answered
        ]
        for call_id in waiting:
            output = {"type": "function_call_output", "call_id": call_id, "output": "of the client"}
            self.client(type="conversation.item.create", item=output)
        if waiting:
            self.client(type="response.create")

    def texts(self) -> Counter[str]:
        """How often each result stands in the history."""
        found: Counter[str] = Counter()
        for item in self.conversation.history:
            for call_id in self.returned:
                found[call_id] += f"result of {call_id}" in (item.output + item.text)
        return found


plans = st.builds(
    EnginePlan,
    transcript_delay=st.floats(0.0, 0.8),
    token_delay=st.floats(0.001, 0.1),
    voice_delay=st.floats(0.0, 0.3),
    no_words=st.sampled_from([0.0, 0.5]),
    chat_fails=st.sampled_from([0.0, 0.3]),
    answer_words=st.integers(1, 10),
)
rounds = st.lists(st.lists(st.sampled_from(NAMES), max_size=4), max_size=8)
events = st.lists(
    st.tuples(
        st.floats(0.0, 10.0),
        st.sampled_from(
            [
                {"type": "response.create"},
                {"type": "response.cancel"},
                {"type": "output_audio_buffer.clear"},
                {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"]}},
                "client answers",
                SayText("By the way."),
                KeysPressed("12"),
                HandOver("other", "You are another.", "alloy", TOOLS, note="So far so good.", greeting="Hello."),
                HandOver("other", "You are another.", "alloy", TOOLS),
            ]
        ),
    ),
    max_size=6,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32),
    plan=plans,
    calls=rounds,
    seconds=st.sampled_from([0.001, 0.1, 0.8, 3.0]),
    speeches=st.lists(st.tuples(st.floats(0.05, 8.0), st.floats(0.1, 2.0)), min_size=1, max_size=5),
    happens=events,
    hangs_up=st.one_of(st.none(), st.floats(0.5, 8.0)),
)
def test_each_tool_runs_once_and_each_result_is_told_once(
    seed: int,
    plan: EnginePlan,
    calls: list[list[str]],
    seconds: float,
    speeches: list[tuple[float, float]],
    happens: list[tuple[float, Any]],
    hangs_up: float | None,
) -> None:
    call = ToolSimulation(seed, plan, calls, seconds)
    at = 0.0
    for pause, length in speeches:
        call.speak(at + pause, length)
        at += pause + length + 0.6
    for moment, event in happens:
        if event == "client answers":
            call.at(moment, call.answer_for_the_client)
        elif isinstance(event, dict):
            call.at(moment, lambda event=event: call.client(**event))
        else:
            call.at(moment, event)
    if hangs_up is not None:
        call.at(hangs_up, HangUp("agent_hangup"))
    call.run(90)
    call.answer_for_the_client()
    call.run(60)

    ids = [run.call.id for run in call.runs]
    assert len(ids) == len(set(ids)), "a tool was asked for twice"
    names = {run.call.id: run.call.name for run in call.runs}
    assert all(names[call_id] == "cancel" for call_id in call.cancelled), "only what declares it is cancelled"
    assert "client" not in names.values()
    for request in call.requests:
        check(request)
    assert call.returned == set(ids) - call.cancelled or call.over
    for call_id, count in call.texts().items():
        assert count == 1, f"{names[call_id]} was told {count} times"
    assert not call.conversation._tools.waiting or call.over
    if call.over or call.conversation.active is not None:
        return
    read = [message.content for request in call.requests for message in request.messages]
    for call_id in call.returned:
        told = any(f"result of {call_id}" in content for content in read)
        assert told or names[call_id] == "bye" or mixed(call, call_id) or lost(call), names[call_id]


def test_what_is_to_be_said_waits_until_a_false_start_is_known_to_be_one() -> None:
    call = ToolSimulation(0, EnginePlan(no_words=0.5, answer_words=7, token_delay=0.0625), [], 0.001)
    call.speak(2.0, 1.0)
    call.at(0.0, lambda: call.client(type="response.create"))
    call.at(0.0, SayText("By the way."))
    call.at(2.0, SayText("And besides."))
    call.run(60)
    call.orders.finish()
    said = [item.text for item in call.conversation.history if item.role == "assistant"]
    assert said[-1] == "And besides."
    assert "By the way." in " ".join(said)


def check(request: ChatRequest) -> None:
    """What no vendor takes: a call without its output right behind it, or an output of nothing."""
    owed: list[str] = []
    for message in request.messages:
        if message.role == "tool":
            assert owed
            assert message.tool_call_id == owed.pop(0)
            continue
        assert owed == [], "a call without its output"
        owed = [asked.id for asked in message.tool_calls]
        assert len(owed) == len(set(owed))
    assert owed == []


def mixed(call: ToolSimulation, call_id: str) -> bool:
    """The client was called in the same round, and asks for the answer when it likes."""
    for event in call.of("response.done"):
        items = [item for item in event["response"]["output"] if item["type"] == "function_call"]
        if any(item["call_id"] == call_id for item in items):
            return any(item["name"] == "client" for item in items)
    return False


def lost(call: ToolSimulation) -> bool:
    """The answer to it was cancelled or failed, or another agent had taken over that reads a summary."""
    done = [event["response"]["status"] for event in call.of("response.done")]
    taken_over = any(item.fresh for item in call.conversation.history)
    return taken_over or any(status in ("cancelled", "failed") for status in done)
