"""Your own code and the chat model in one answer: rules first, the model for the rest."""

from collections.abc import AsyncIterator

from realtime.agents import Agent, Turn

agent = Agent("You are the reception of a hotel.", greeting="Good evening.")


@agent.turn
async def answer(turn: Turn) -> AsyncIterator[str]:
    if "breakfast" in turn.text.lower():
        yield "Breakfast is from seven to ten."
        return
    yield "Let me see."
    async for piece in turn.chat():
        yield piece
