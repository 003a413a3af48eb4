"""Tools that every call can do, for agents that want them: `Agent(tools=[hang_up, send_keys, transfer_to({…})])`.

Without Python: `call_tools` and `transfer_to` of the settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from realtime.agents.call import Call
from realtime.agents.functions import FunctionTool
from realtime.settings_tools import AgentTools

__all__ = ["hang_up", "of_settings", "pause_recording", "resume_recording", "send_keys", "transfer_to"]


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


async def _pause_recording(call: Call) -> str:
    """Stop recording this call for a while. Always do so before the caller tells a card number or the like."""
    call.pause_recording()
    return "What is said now is not recorded. Resume the recording when the caller has told it."


async def _resume_recording(call: Call) -> str:
    """Record this call again, after it was paused."""
    call.resume_recording()
    return "Recorded again."


hang_up = FunctionTool(_hang_up, name="hang_up", farewell=True)
send_keys = FunctionTool(_send_keys, name="send_keys")
pause_recording = FunctionTool(_pause_recording, name="pause_recording", filler="")
resume_recording = FunctionTool(_resume_recording, name="resume_recording", filler="")


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


def of_settings(settings: AgentTools) -> dict[str, FunctionTool]:
    """Those that an agent's settings name."""
    known = {tool.spec.tool.name: tool for tool in (hang_up, send_keys, pause_recording, resume_recording)}
    found = [known[name] for name in settings.call_tools]
    if settings.transfer_to:
        found.append(transfer_to(settings.transfer_to))
    return {tool.spec.tool.name: tool for tool in found}
