"""A tool of the server beside tools that the caller's page brings: it sends `open_door` by `session.update`,

gets `response.function_call_arguments.done`, answers with a `function_call_output` and asks for `response.create`.
"""

from realtime.agents import Agent

agent = Agent("You keep a guest house.", greeting="Welcome to the guest house.")


@agent.tool
async def free_rooms(night: str) -> list[str]:
    """Rooms that are free."""
    return ["the blue one", "the green one"]
