"""`Agent`: what a developer writes. It declares; `realtime.agents.calls` has it answer.

    agent = Agent(instructions="You book tables.", greeting="Hello, how many are you?")

    @agent.tool
    async def free_tables(day: str, people: int) -> list[str]: ...

Every mistake that can be seen in the declaration is raised where it is made, and names the function.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, overload

from pydantic import ValidationError

from realtime.agents.call import AnyAgent
from realtime.agents.functions import BadFunction, FunctionTool, takes
from realtime.agents.tools import TIMEOUT_S
from realtime.agents.turn import TurnFunction
from realtime.mistakes import nearest
from realtime.settings import AgentSettings

APOLOGY = "Sorry, something went wrong here. Please say that again."

TURN_S = 20.0
"""Seconds in which a turn has to yield something more; nobody waits longer on the telephone."""

F = TypeVar("F", bound=Callable[..., Any])


class Agent(AnyAgent):
    """What answers a call.

    `chat`, `stt`, `tts`: engines, named as in the settings. `filler`: said when a tool keeps the caller
    waiting for `filler_after` seconds. `apology`: said when a turn fails, or yields nothing for
    `turn_timeout` seconds. `keys_as_turns`: what the caller types on the telephone, up to `#` or a pause, is
    answered like words. `variables`: values for `{{name}}` in instructions and greeting. `recording`: as in the
    settings, `True` or a table. What is not given is as `[agents.NAME]` of the settings has it.
    """

    def __init__(
        self,
        instructions: str | None = None,
        *,
        greeting: str | None = None,
        voice: str | None = None,
        name: str = "default",
        chat: str | Sequence[str] | None = None,
        stt: str | Sequence[str] | None = None,
        tts: str | Sequence[str] | None = None,
        language: str | None = None,
        filler: str | None = None,
        filler_after: float | None = None,
        apology: str = APOLOGY,
        turn_timeout: float = TURN_S,
        variables: Mapping[str, str] | None = None,
        recording: bool | Mapping[str, Any] | None = None,
        tools: Sequence[Callable[..., Any] | FunctionTool] = (),
        keys_as_turns: bool = False,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", name):
            raise ValueError(f"{name!r} cannot be an agent's name: letters, digits, `_`, `.` and `-`, at most 64")
        self.name = name
        if not 0 < turn_timeout <= 600:
            raise ValueError("turn_timeout is more than 0 and at most 600 seconds")
        self.apology = apology
        self.turn_timeout = turn_timeout
        self.variables = dict(variables or {})
        self.tools: dict[str, FunctionTool] = {}
        self.answer: TurnFunction | None = None
        self.started: Callable[..., Any] | None = None
        self.ended: Callable[..., Any] | None = None
        self.idled: Callable[..., Any] | None = None
        self.pressed: Callable[..., Any] | None = None
        self.idle_seconds: float | None = None
        given: dict[str, Any] = {
            "instructions": instructions,
            "greeting": greeting,
            "voice": voice,
            "chat": _names(chat),
            "stt": _names(stt),
            "tts": _names(tts),
            "language": language,
            "filler": filler,
            "filler_after_ms": None if filler_after is None else round(filler_after * 1000),
            "recording": recording if recording is None or isinstance(recording, bool) else dict(recording),
        }
        self._given = {key: value for key, value in given.items() if value is not None}
        try:
            checked = AgentSettings.model_validate(self._given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ValueError(f"Agent({'.'.join(map(str, first['loc']))}=...): {first['msg']}") from None
        if recording is not None:
            self._given["recording"] = checked.recording
        self.keys_as_turns = keys_as_turns
        for tool in tools:
            if isinstance(tool, FunctionTool):
                self._add(tool)
            else:
                self.tool(tool)

    def settings(self, base: AgentSettings) -> AgentSettings:
        """`base`, with what was given here."""
        return base.model_copy(update=self._given)

    def __getattr__(self, name: str) -> Any:
        close = nearest(name, (known for known in dir(type(self)) if not known.startswith("_")))
        hint = f"; did you mean `{close}`?" if close else ""
        raise AttributeError(f"an Agent has no `{name}`{hint}")

    # --- decorators ---------------------------------------------------------------------------

    @overload
    def tool(self, function: F, /) -> F: ...

    @overload
    def tool(
        self,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float = TIMEOUT_S,
        on_cut: Literal["finish", "cancel"] = "finish",
        filler: str | None = None,
        later: bool = False,
    ) -> Callable[[F], F]: ...

    def tool(
        self,
        function: Callable[..., Any] | None = None,
        /,
        *,
        name: str | None = None,
        description: str | None = None,
        timeout: float = TIMEOUT_S,
        on_cut: Literal["finish", "cancel"] = "finish",
        filler: str | None = None,
        later: bool = False,
    ) -> Any:
        """Let the chat model call the function: its types and docstring are the tool's schema.

        `timeout`: seconds. `on_cut`: whether it is finished or cancelled when the caller goes on to something
        else. `filler`: said while the caller waits for it. `later`: the model is told at once that the result
        follows, and gets it when it is there. A result is text, or made JSON of; an `Agent` takes over the call.
        """

        def add(function: F) -> F:
            tool = FunctionTool(
                function,
                name=name,
                description=description,
                timeout=timeout,
                on_cut=on_cut,
                filler=filler,
                later=later,
            )
            self._add(tool)
            return function

        return add if function is None else add(function)

    def _add(self, tool: FunctionTool) -> None:
        name = tool.spec.tool.name
        if name in self.tools:
            raise BadFunction(tool.function, f"there is a tool called {name!r} already")
        self.tools[name] = tool

    def turn(self, function: F) -> F:
        """Answer every turn with an async generator: it gets a `Turn` and yields text."""
        if not inspect.isasyncgenfunction(function) and not inspect.iscoroutinefunction(function):
            raise BadFunction(function, "a turn is an `async def` that yields text, or returns it")
        takes(function, "turn")
        self.answer = self._only(self.answer, function, "turn")
        return function

    def on_call_start(self, function: F) -> F:
        """Before the call is answered: it gets the `Call`, and may change instructions, greeting and variables."""
        takes(function, "call")
        self.started = self._only(self.started, function, "on_call_start")
        return function

    def on_call_end(self, function: F) -> F:
        """After the call: it gets the `Call` and its record (`reason`, `transcript`, `seconds`, …)."""
        takes(function, "call", "record")
        self.ended = self._only(self.ended, function, "on_call_end")
        return function

    def on_user_idle(self, *bare: object, seconds: float = 0.0) -> Callable[[F], F]:
        """After so much silence, again and again: it gets the `Call` and for how long the caller has said nothing.

        What the bot says meanwhile does not count, and does not begin the count anew.
        """
        if bare:
            raise BadFunction(bare[0], "write how long it waits: @agent.on_user_idle(seconds=8)")
        if not 1 <= seconds <= 3600:
            raise ValueError("on_user_idle: seconds is from 1 to 3600")

        def add(function: F) -> F:
            takes(function, "call", "seconds")
            self.idled = self._only(self.idled, function, "on_user_idle")
            self.idle_seconds = seconds
            return function

        return add

    def on_key(self, function: F) -> F:
        """The caller pressed a key of the telephone: it gets the `Call` and one of `0-9*#ABCD`."""
        takes(function, "call", "key")
        self.pressed = self._only(self.pressed, function, "on_key")
        return function

    @staticmethod
    def _only(before: object, function: F, what: str) -> F:
        if before is not None:
            raise BadFunction(function, f"the agent has a function for {what} already")
        return function


def _names(engines: str | Sequence[str] | None) -> list[str] | None:
    return [engines] if isinstance(engines, str) else None if engines is None else list(engines)
