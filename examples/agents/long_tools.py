"""Tools that take their time: one fills the silence, one answers later, one can be cancelled."""

import asyncio

from realtime.agents import Agent

agent = Agent("You plan journeys.", filler="One moment, please.", filler_after=1.0)


@agent.tool(timeout=20)
async def find_trains(to: str) -> str:
    """Trains to a town."""
    await asyncio.sleep(3)
    return "at nine and at ten"


@agent.tool(later=True, timeout=120)
async def book_hotel(town: str) -> str:
    """Books a hotel; the answer takes a minute."""
    await asyncio.sleep(30)
    return f"A room in {town} is booked."


@agent.tool(on_cut="cancel", timeout=60)
async def compare_prices(to: str) -> str:
    """Compares all prices."""
    await asyncio.sleep(20)
    return "The train is cheaper."
