"""Your own code answers, without any chat model: it counts, and stops when it is interrupted."""

from collections.abc import AsyncIterator

from realtime.agents import Agent, Turn

agent = Agent(greeting="Tell me how far to count.")


@agent.turn
async def answer(turn: Turn) -> AsyncIterator[str]:
    numbers = [int(word.strip(".")) for word in turn.text.split() if word.strip(".").isdigit()]
    before = [said.text for said in turn.history if said.role == "assistant"][1:]
    if before:
        yield f"I had come to: {before[-1].split()[-1]} "
    for number in range(1, (numbers or [3])[0] + 1):
        yield f"{number}, "
    yield "done."
