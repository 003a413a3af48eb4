"""What every kind of tool is to a call: a description for the model, a time limit, and something to run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from realtime.adapters.base import ToolCall
from realtime.agents.blame import where
from realtime.agents.call import AnyAgent, Call, ToolError
from realtime.agents.usercode import TookTooLong
from realtime.live.agent import ServerTool
from realtime.live.text import repaired
from realtime.live.toolcalls import MAX_OUTPUT

log = logging.getLogger("realtime.agents")

TIMEOUT_S = 30.0
"""Seconds a tool may take, where it does not say otherwise."""

MAX_TIMEOUT_S = 3600.0

CUT = " … (cut: the result is longer)"

MAX_RESULT = MAX_OUTPUT - len(CUT)
"""Characters of a result that are kept."""

AT_ONCE = 16
"""Tools of one call that run at once."""

BUSY = "Not run: too many tools are running already. Wait for their results first."


@dataclass(frozen=True, slots=True)
class ToolResult:
    """`hand_over`: who answers from here on."""

    text: str
    hand_over: AnyAgent | None = None


class AgentTool(Protocol):
    @property
    def spec(self) -> ServerTool: ...

    @property
    def timeout(self) -> float: ...

    async def run(self, asked: ToolCall, call: Call) -> ToolResult:
        """On the server's loop. Raises `ToolError` with words for the model; any other error is a defect."""


def bounded(text: str) -> str:
    return repaired(text) if len(text) <= MAX_RESULT else repaired(text[:MAX_RESULT]) + CUT


Spawn: TypeAlias = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
"""Begins work that may outlive its call, and that the server waits for a little when it stops."""

Done: TypeAlias = Callable[[str, "ToolResult"], None]


class ToolRunner:
    """The tools of one call under way."""

    def __init__(self, tools: Mapping[str, AgentTool], call: Call, log_ids: str, spawn: Spawn) -> None:
        self._tools = tools
        self._call = call
        self._log_ids = log_ids
        self._spawn = spawn
        self._known: set[str] = set()
        self._running: dict[str, tuple[AgentTool, asyncio.Task[None]]] = {}

    def run(self, asked: ToolCall, done: Done) -> None:
        """`done(call_id, result)` is called once, unless it is cancelled. Nothing, for a call id run before."""
        tool = self._tools.get(asked.name)
        if asked.id in self._known or tool is None:
            return
        self._known.add(asked.id)
        if len(self._running) >= AT_ONCE:
            done(asked.id, ToolResult(BUSY))
            return
        task = self._spawn(self._finish(tool, asked, done))
        self._running[asked.id] = tool, task
        task.add_done_callback(lambda _: self._running.pop(asked.id, None))

    def cancel(self, call_id: str) -> None:
        if call_id in self._running:
            self._running[call_id][1].cancel()

    def end(self) -> None:
        """The call is over: what is to be finished goes on, up to its time limit."""
        for tool, task in list(self._running.values()):
            if tool.spec.on_cut == "cancel":
                task.cancel()

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """Of what is running."""
        return {task for _, task in self._running.values()}

    async def _finish(self, tool: AgentTool, asked: ToolCall, done: Done) -> None:
        began = asyncio.get_running_loop().time()
        try:
            result, outcome = await self._result(tool, asked)
        except asyncio.CancelledError:
            log.info("%s tool %s call=%s cancelled", self._log_ids, asked.name, asked.id)
            raise
        seconds = asyncio.get_running_loop().time() - began
        log.info("%s tool %s call=%s %s seconds=%.2f", self._log_ids, asked.name, asked.id, outcome, seconds)
        done(asked.id, result)

    async def _result(self, tool: AgentTool, asked: ToolCall) -> tuple[ToolResult, str]:
        try:
            return await tool.run(asked, self._call), "done"
        except ToolError as error:
            return ToolResult(bounded(str(error))), "refused"
        except TookTooLong as error:
            log.error("%s tool %s was given up: %s", self._log_ids, asked.name, error)
            return ToolResult(f"No result: it took longer than {error.seconds:g} s and was stopped."), "timeout"
        except Exception as error:
            log.error("%s tool %s failed at %s", self._log_ids, asked.name, where(error), exc_info=error)
            return ToolResult("It failed. There is no result."), "failed"


def words_of(details: list[Any]) -> str:
    """Pydantic's errors in words for a model: which argument, and what is wrong with it."""
    told = [f"{'.'.join(str(step) for step in one['loc']) or 'arguments'}: {one['msg']}" for one in details[:10]]
    return "The arguments do not fit. " + "; ".join(told)
