"""The tools that the model calls: which run here, what their results lead to. Sans-I/O.

The calls of one response are a round. Those of server tools are run (`RunTool`, once for a call id),
the others are the client's. When every server tool of a round has returned, and no call of it was the
client's, an answer is owed; a client that was called too asks for the answer itself.

    RUNNING --returned--> done (its output joins the history)
       |
       +--deferred--> DEFERRED --returned--> told (a message joins the history, an answer is owed)

A call is deferred when it is a `later` tool, or when something has to be answered before it returns: the
model reads a note in place of its output, because vendors refuse a call without one, and would call
again what they cannot see.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from realtime.adapters.base import ToolCall
from realtime.live import wire
from realtime.live.agent import ServerTool
from realtime.live.config import ResponseConfig, SessionConfig
from realtime.live.effects import CancelTool, Effect, RunTool, Send, ToolReturned
from realtime.live.items import History, Item, Part
from realtime.live.responses import Purpose, Response

MAX_OUTPUT = 20_000
"""Characters of a tool's result that the model reads."""

MAX_ROUNDS = 10
"""Rounds of tools for one turn of the caller; then the model has to answer without."""

LATER = "Started. The result is not there yet; it will be given to you when it is. Do not call this again for it."
STILL_RUNNING = "Still running. The result will be given to you when it is there. Do not call this again for it."
CANCELLED = "Cancelled: the caller went on to something else before it had finished."


@dataclass(slots=True)
class _Round:
    """The calls of one response.

    `config`: the response's, when the client had asked for it. `running`: ids of calls without an output.
    `mixed`: the client was called too.
    `farewell`: what was said along with the calls is the last word on them.
    """

    config: ResponseConfig | None
    running: set[str] = field(default_factory=set)
    mixed: bool = False
    farewell: bool = False


@dataclass(slots=True)
class _Running:
    name: str
    spec: ServerTool
    round: _Round
    deferred: bool = False
    settled: bool = False
    """It has handed the call over: what it returns late needs no answer."""


@dataclass(frozen=True, slots=True)
class Owed:
    """An answer is due to the results of tools; `config`: of the response that called them, where it still counts."""

    config: ResponseConfig | None = None

    def apply(self, default: ResponseConfig, *, exhausted: bool) -> ResponseConfig:
        """The configuration of that answer: no tool is forced a second time, nor called for ever."""
        config = self.config or default
        if exhausted:
            return replace(config, tool_choice="none")
        return config if config.tool_choice in ("auto", "none") else replace(config, tool_choice="auto")


class ToolCalls:
    def __init__(self, config: SessionConfig, history: History) -> None:
        self._config = config
        self._history = history
        self._running: dict[str, _Running] = {}
        self._ran: set[str] = set()
        self._rounds = 0

    @property
    def waiting(self) -> bool:
        """The caller waits in silence for a tool that runs here."""
        return any(not running.deferred for running in self._running.values())

    @property
    def filler(self) -> str | None:
        """What a running tool wants said meanwhile; "" for nothing, None for what the agent says."""
        fillers = (running.spec.filler for running in self._running.values() if not running.deferred)
        return next((filler for filler in fillers if filler is not None), None)

    @property
    def holds(self) -> bool:
        """A client that has answered its calls asks for the answer, and tools of the same round still run here."""
        return any(running.round.mixed and not running.deferred for running in self._running.values())

    def ran(self, call_id: str) -> bool:
        """Whether the call is one of a tool here: its result is nobody else's to tell."""
        return call_id in self._ran

    @property
    def exhausted(self) -> bool:
        return self._rounds >= MAX_ROUNDS

    def new_turn(self) -> None:
        """The caller has said something: what came before does not count against this turn."""
        self._rounds = 0

    def called(self, response: Response) -> tuple[list[Effect], Owed | None]:
        """The model has finished a response that calls tools."""
        specs = {spec.tool.name: spec for spec in self._config.server_tools}
        round_ = _Round(response.config if response.purpose is Purpose.REQUESTED else None)
        effects: list[Effect] = []
        for item in response.tool_items:
            spec = specs.get(item.name)
            if spec is None:
                round_.mixed = True
                continue
            round_.running.add(item.call_id)
            self._ran.add(item.call_id)
            self._running[item.call_id] = _Running(item.name, spec, round_)
            effects.append(RunTool(ToolCall(item.call_id, item.name, item.arguments)))
        if not round_.running:
            return [], None
        round_.farewell = response.message is not None and all(
            self._running[call_id].spec.farewell for call_id in round_.running
        )
        self._rounds += 1
        for call_id in list(round_.running):
            if self._running[call_id].spec.later:
                effects += self._defer(call_id, LATER)
        return effects, self._complete(round_)

    def returned(self, event: ToolReturned) -> tuple[list[Effect], Owed | None]:
        """A tool has finished; a result that nobody waits for any more is dropped."""
        running = self._running.pop(event.call_id, None)
        if running is None:
            return [], None
        output = event.output if len(event.output) <= MAX_OUTPUT else event.output[:MAX_OUTPUT] + " … (cut)"
        if running.deferred:
            text = f"[{running.name} (call {event.call_id}) has finished: {output}]"
            item = Item("message", role="system", parts=[Part("input_text", text)])
            told = running.settled or (running.round.farewell and not running.spec.later)
            return self._add(item), None if told else Owed()
        return self._output(event.call_id, running.round, output), self._complete(running.round)

    def hand_over(self, *, greeted: bool, by: str | None) -> None:
        """Another agent answers: what the old one was asked for in particular is past.

        `greeted`: that one's greeting is the last word on what the caller waits for. `by`: the tool that did it.
        """
        if by in self._running:
            self._running[by].settled = True
        for running in self._running.values():
            running.round.config = None
            if greeted and not running.deferred:
                running.round.farewell = True

    def defer(self) -> list[Effect]:
        """Something is answered before the running tools have returned."""
        return [
            effect
            for call_id, running in list(self._running.items())
            if not running.deferred
            for effect in self._defer(call_id, STILL_RUNNING)
        ]

    def cut(self) -> list[Effect]:
        """The caller has gone on: tools that want to be cancelled are."""
        effects: list[Effect] = []
        for call_id, running in list(self._running.items()):
            if running.spec.on_cut != "cancel":
                continue
            del self._running[call_id]
            effects.append(CancelTool(call_id))
            if not running.deferred:
                effects += self._output(call_id, running.round, CANCELLED)
        return effects

    def _defer(self, call_id: str, note: str) -> list[Effect]:
        running = self._running[call_id]
        running.deferred = True
        return self._output(call_id, running.round, note)

    def _output(self, call_id: str, round_: _Round, output: str) -> list[Effect]:
        round_.running.discard(call_id)
        return self._add(Item("function_call_output", call_id=call_id, output=output))

    def _add(self, item: Item) -> list[Effect]:
        previous = self._history.append(item)
        wired = item.to_wire()
        return [
            Send(wire.ItemAdded(item=wired, previous_item_id=previous)),
            Send(wire.ItemDone(item=wired, previous_item_id=previous)),
        ]

    def _complete(self, round_: _Round) -> Owed | None:
        return None if round_.running or round_.mixed or round_.farewell else Owed(round_.config)
