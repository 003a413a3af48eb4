"""A call as the developer's code sees it. Everything here may be used from the developer's loop or threads."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from realtime.agents.usercode import UserCode
from signaling.caller import Caller

__all__ = ["AnyAgent", "Call", "Caller", "CannotSendKeys", "CannotTransfer", "Host", "Said", "ToolError"]


class ToolError(Exception):
    """Raised by a tool: its message is what the model reads. The message of any other error is only logged."""


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

    def hand_over(self, agent: AnyAgent | str, summary: str | None) -> None: ...

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
        user: UserCode,
        host: Host,
    ) -> None:
        self.id = id_
        self.agent = agent
        self.caller = caller
        self.variables: dict[str, Any] = dict(variables)
        self.instructions = ""
        self.greeting: str | None = None
        self.voice: str | None = None
        self.user = user
        self._host = host

    def say(self, text: str) -> None:
        """Have `text` said, after what is being said now. Dropped when the caller interrupts before."""
        self._do(lambda host: host.say(_text(text)))

    def hang_up(self, *, at_once: bool = False) -> None:
        """End the call when what is being said has been heard, or `at_once`."""
        self._do(lambda host: host.hang_up(at_once=at_once))

    def hand_over(self, agent: AnyAgent | str, summary: str | None = None) -> None:
        """`agent`, or the one of that name, answers from here on.

        It reads `summary` instead of the call so far; without one, all of it.
        """
        if not isinstance(agent, AnyAgent | str):
            raise TypeError("a call is handed over to an Agent, or to the name of one")
        self._do(lambda host: host.hand_over(agent, summary))

    async def transfer(self, target: str, *, at_once: bool = False) -> None:
        """Pass a telephone call on to a number or SIP address, when what is being said has been heard, or `at_once`.

        Raises `CannotTransfer`.
        """
        await self.user.main(self._host.transfer(_text(target), at_once=at_once))

    async def transfer_soon(self, target: str) -> None:
        """The same without waiting for it; should the carrier refuse then, the caller hears the apology.

        Raises `CannotTransfer` when the call is none that can be passed on.
        """
        await self.user.main(self._host.transfer_soon(_text(target)))

    async def send_keys(self, keys: str, *, at_once: bool = False) -> None:
        """Press `0-9*#ABCD` of the telephone towards the other side.

        When what is being said has been heard, or `at_once`. A comma waits for half a second. Raises
        `CannotSendKeys`.
        """
        await self.user.main(self._host.send_keys(_text(keys), at_once=at_once))

    async def keys(self, *, count: int | None = None, until: str = "#", timeout: float = 15.0) -> str:
        """The keys that the caller presses from now on: `count` of them, or those before one of `until`.

        What there is when the time is up. They are in no transcript and the model does not see them.
        """
        return await self.user.main(self._host.collect_keys(count, until, timeout))

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
        self.user.post(functools.partial(what, self._host))


def _text(text: object) -> str:
    if not isinstance(text, str):
        raise TypeError(f"text is said, not {type(text).__name__}")
    return text
