"""What answers a call: the developer's own Python, its tools and hooks. `Agent` is where one begins."""

from realtime.agents.agent import Agent
from realtime.agents.builtin import hang_up, pause_recording, resume_recording, send_keys, transfer_to
from realtime.agents.call import Call, CannotSendKeys, CannotTransfer, Said, ToolError
from realtime.agents.turn import Turn

__all__ = [
    "Agent",
    "Call",
    "CannotSendKeys",
    "CannotTransfer",
    "Said",
    "ToolError",
    "Turn",
    "hang_up",
    "pause_recording",
    "resume_recording",
    "send_keys",
    "transfer_to",
]
