"""What answers a call: the developer's own Python, its tools and hooks. `Agent` is where one begins."""

from realtime.agents.agent import Agent
from realtime.agents.call import Call, CannotTransfer, Said
from realtime.agents.functions import ToolError
from realtime.agents.turn import Turn

__all__ = ["Agent", "Call", "CannotTransfer", "Said", "ToolError", "Turn"]
