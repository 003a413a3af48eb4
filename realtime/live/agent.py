"""What a session needs of the agent that answers it: the seam between a call and the developer's code.

`realtime.agents` implements `CallAgent`, one for each call. The conversation is told what came of it
by inputs (`ToolReturned`, `SayText` …) through `Session.tell`; it never waits for anything here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from realtime.adapters.base import ChatModel, Tool, ToolCall


@dataclass(frozen=True, slots=True)
class ServerTool:
    """A tool that runs here, as the conversation knows it.

    `on_cut`: whether it goes on when the caller speaks on before it has finished. `later`: the model is
    told at once that the result follows, and gets it when it is there. `filler`: said, instead of the
    agent's, when it keeps the caller waiting; "" for nothing.
    `farewell`: when something was said along with the call, nothing more is said about its result.
    """

    tool: Tool
    on_cut: Literal["finish", "cancel"] = "finish"
    later: bool = False
    filler: str | None = None
    farewell: bool = False


@dataclass(frozen=True, slots=True)
class Filler:
    """Said when a tool has kept the caller waiting for `after_s` seconds."""

    text: str
    after_s: float


class CallAgent(Protocol):
    """What answers one call. Every method is called on the event loop and returns at once."""

    @property
    def name(self) -> str: ...

    @property
    def tools(self) -> Sequence[ServerTool]: ...

    @property
    def filler(self) -> Filler | None: ...

    @property
    def idle_seconds(self) -> float | None:
        """After so much silence, and again each time it has lasted that long, `idle` is told."""

    def model(self, engine: ChatModel) -> ChatModel:
        """What the conversation asks for its answers; `engine` is the chat model of the settings."""

    def run_tool(self, call: ToolCall) -> None:
        """Called once for a call id; `ToolReturned` follows, whatever happens."""

    def cancel_tool(self, call_id: str) -> None:
        """Nobody waits for it any more."""

    def key(self, key: str) -> None:
        """The caller pressed a key of the telephone."""

    def idle(self, seconds: float) -> None:
        """Nobody has said anything for so long."""

    def quiet(self, token: str) -> None:
        """Nothing is being said now, which it wanted to know (`WhenQuiet`)."""

    def end(self, record: Mapping[str, Any]) -> None:
        """The call is over: its record, as it is kept (`reason`, `transcript`, …)."""
