"""Tools that every call can do, for agents that want them: `Agent(tools=[hang_up, send_keys, transfer_to({…})])`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from realtime.agents.call import Call
from realtime.agents.functions import FunctionTool

__all__ = ["hang_up", "send_keys", "transfer_to"]


async def _hang_up(call: Call) -> str:
    """End the call: when the caller has said goodbye, or nothing is left to do. Say goodbye along with it."""
    call.hang_up()
    return "The call ends when your goodbye has been heard."


async def _send_keys(call: Call, keys: Annotated[str, Field(pattern=r"^[0-9*#A-D,]{1,32}$")]) -> str:
    """Press keys of the telephone, for menus of the other side.

    Args:
        keys: Of 0-9, *, #, A-D; a comma waits for half a second.
    """
    await call.send_keys(keys)
    return "Pressed."


hang_up = FunctionTool(_hang_up, name="hang_up", farewell=True)
send_keys = FunctionTool(_send_keys, name="send_keys")


def transfer_to(targets: Mapping[str, str]) -> FunctionTool:
    """Passes a telephone call on. `targets`: numbers or SIP addresses by the names that the model reads of them."""
    if not targets:
        raise ValueError("transfer_to needs at least one target")

    async def transfer(call: Call, to: str) -> str:
        """Pass the caller on to somebody else. Say so along with it."""
        await call.transfer(targets[to])
        return "The caller is being connected."

    transfer.__annotations__ = {"call": Call, "to": Literal[tuple(targets)], "return": str}
    return FunctionTool(transfer, farewell=True)
