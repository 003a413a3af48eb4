"""For tests of what users build: calls to agents of their own in virtual time, engines held to their contract."""

from realtime.testing.parts import Pace, calls
from realtime.testing.simulated_call import SimulatedCall, ToolRun

__all__ = ["Pace", "SimulatedCall", "ToolRun", "calls"]
