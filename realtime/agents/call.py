"""A call as the developer's code sees it. Everything here may be used from the developer's loop or threads."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar

from realtime.agents.usercode import UserCode
from realtime.live.text import repaired
from signaling.caller import Caller

__all__ = ["AnyAgent", "Call", "Caller", "CannotSendKeys", "CannotTransfer", "Host", "Said", "ToolError"]


T = TypeVar("T")


class ToolError(Exception):
    """Raised by a tool: its message is what the model reads. The message of any other error is only logged."""


AT_ONCE = 64
"""What the code of one call may ask for and has not been looked at yet: more is a loop that floods."""

RUNNING: ContextVar[str | None] = ContextVar("RUNNING", default=None)
"""The call id of the tool whose code this is."""

MAX_SAID = 4000
"""Characters that are said at once: five minutes."""

MAX_INSTRUCTIONS = 100_000


class CannotTransfer(ToolError):
    """The call cannot be passed on: it is not held by a carrier that does this, or the carrier refused."""


class CannotSendKeys(ToolError):
    """This call has no way to press keys, or they are none."""


@dataclass(frozen=True, slots=True)
class Said:
    """One thing that was said, as it was heard."""

    role: Literal["user", "assistant"]
    text: str


class AnyAgent:
    """What a call can be handed over to."""

    name: str


class Host(Protocol):
    """What has things done, on the server's loop."""

    def say(self, text: str) -> None: ...

    def hang_up(self, *, at_once: bool) -> None: ...

    def hand_over(self, agent: AnyAgent | str, summary: str | None, tool: str | None) -> None:
        """`tool`: the call id of the tool that does."""

    async def transfer(self, target: str, *, at_once: bool) -> None: ...

    async def transfer_soon(self, target: str) -> None: ...

    def record(self, on: bool) -> None: ...

    async def send_keys(self, keys: str, *, at_once: bool) -> None: ...

    async def collect_keys(self, count: int | None, until: str, seconds: float) -> str: ...

    def said(self) -> list[Said]: ...


class Call:
    """One call under way.

    `id`: as in the log and the API (`sess_…`). `caller`: who calls, as far as the wire says so. `variables`:
    what is known of the call, by name; yours to read and to change, and gone with the call. `instructions`,
    `greeting`, `voice`: of its agent; changing them counts in `on_call_start` only.
    """

    def __init__(
        self,
        id_: str,
        *,
        agent: str,
        caller: Caller,
        variables: Mapping[str, Any],
        instructions: str = "",
        greeting: str | None = None,
        voice: str | None = None,
        user: UserCode,
        host: Host,
    ) -> None:
        self.id = id_
        self.agent = agent
        self.caller = caller
        self._variables: dict[str, Any] = dict(variables)
        self._instructions = instructions
        self._greeting = greeting
        self._voice = voice
        self.user = user
        self._host = host
        self._room = threading.Semaphore(AT_ONCE)

    @property
    def variables(self) -> dict[str, Any]:
        return self._variables

    @variables.setter
    def variables(self, values: Mapping[str, Any]) -> None:
        if not isinstance(values, Mapping):
            raise TypeError(f"variables are values by name, not {type(values).__name__}")
        self._variables = dict(values)

    @property
    def instructions(self) -> str:
        return self._instructions

    @instructions.setter
    def instructions(self, text: str) -> None:
        self._instructions = _text(text, MAX_INSTRUCTIONS)

    @property
    def greeting(self) -> str | None:
        return self._greeting

    @greeting.setter
    def greeting(self, text: str | None) -> None:
        self._greeting = None if text is None else _text(text)

    @property
    def voice(self) -> str | None:
        return self._voice

    @voice.setter
    def voice(self, name: str | None) -> None:
        self._voice = None if name is None else _text(name)

    def say(self, text: str) -> None:
        """Have `text` said, after what is being said now. Dropped when the caller interrupts before."""
        said = _text(text)
        self._do(lambda host: host.say(said))

    def hang_up(self, *, at_once: bool = False) -> None:
        """End the call when what is being said has been heard, or `at_once`."""
        self._do(lambda host: host.hang_up(at_once=at_once))

    def hand_over(self, agent: AnyAgent | str, summary: str | None = None) -> None:
        """`agent`, or the one of that name, answers from here on.

        It reads `summary` instead of the call so far; without one, all of it.
        """
        if not isinstance(agent, AnyAgent | str):
            raise TypeError("a call is handed over to an Agent, or to the name of one")
        told = None if summary is None else _text(summary, MAX_INSTRUCTIONS)
        tool = RUNNING.get()
        self._do(lambda host: host.hand_over(agent, told, tool))

    async def transfer(self, target: str, *, at_once: bool = False) -> None:
        """Pass a telephone call on to a number or SIP address, when what is being said has been heard, or `at_once`.

        Raises `CannotTransfer`.
        """
        await self._ask(lambda host: host.transfer(_text(target), at_once=at_once))

    async def transfer_soon(self, target: str) -> None:
        """The same without waiting for it; should the carrier refuse then, the caller hears the apology.

        Raises `CannotTransfer` when the call is none that can be passed on.
        """
        await self._ask(lambda host: host.transfer_soon(_text(target)))

    async def send_keys(self, keys: str, *, at_once: bool = False) -> None:
        """Press `0-9*#ABCD` of the telephone towards the other side.

        When what is being said has been heard, or `at_once`. A comma waits for half a second. Raises
        `CannotSendKeys`.
        """
        await self._ask(lambda host: host.send_keys(_text(keys), at_once=at_once))

    async def keys(self, *, count: int | None = None, until: str = "#", timeout: float = 15.0) -> str:
        """The keys that the caller presses from now on: `count` of them, or those before one of `until`.

        What there is when the time is up. They are in no transcript and the model does not see them.
        """
        return await self._ask(lambda host: host.collect_keys(count, until, timeout))

    def pause_recording(self) -> None:
        """Where the call is recorded: silence from now on, for card numbers."""
        self._do(lambda host: host.record(False))

    def resume_recording(self) -> None:
        self._do(lambda host: host.record(True))

    @property
    def history(self) -> list[Said]:
        """What was said so far, as it was heard."""
        return self._host.said()

    def _do(self, what: Callable[[Host], None]) -> None:
        self._take_room()
        self.user.post(functools.partial(self._done, what))

    def _done(self, what: Callable[[Host], None]) -> None:
        self._room.release()
        what(self._host)

    async def _ask(self, what: Callable[[Host], Coroutine[Any, Any, T]]) -> T:
        self._take_room()
        try:
            return await self.user.main(what(self._host))
        finally:
            self._room.release()

    def _take_room(self) -> None:
        if not self._room.acquire(blocking=False):
            raise RuntimeError(f"more than {AT_ONCE} things are asked of this call at once")


def _text(text: object, most: int = MAX_SAID) -> str:
    """What the developer's code gives as text. Raises where it stands in that code."""
    if not isinstance(text, str):
        raise TypeError(f"text is wanted, not {type(text).__name__}")
    if len(text) > most:
        raise ValueError(f"{len(text)} characters are more than {most}")
    return repaired(text)
