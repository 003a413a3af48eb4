"""A restaurant's telephone: `realtime serve bot.py`. Its tests are in test_bot.py."""

from realtime.agents import Agent, Call

agent = Agent(
    instructions="You take bookings for a small restaurant. Ask for the day and how many they are.",
    greeting="Hello, Chez Ada. How many are you?",
    voice="alloy",
)

FREE = {"friday": ["19:00", "20:30"], "saturday": []}
booked: list[tuple[str, str, int]] = []


@agent.tool
async def free_tables(day: str, people: int) -> list[str]:
    """Times at which a table is free."""
    return FREE.get(day.lower(), []) if people <= 6 else []


@agent.tool
async def book(call: Call, day: str, time: str, people: int) -> str:
    """Book a table. Ask the caller to confirm before."""
    booked.append((day, time, people))
    return f"Booked for {call.caller.number}."
