"""The shortest agent with a tool: `realtime serve examples/agents/tables.py`, in the page and on the telephone."""

from realtime.agents import Agent

agent = Agent(instructions="You book tables.", greeting="Hello, how many are you?", voice="alloy")


@agent.tool
async def free_tables(day: str, people: int) -> list[str]:
    """Times at which a table is free."""
    return ["19:00", "20:30"] if people <= 6 else []
