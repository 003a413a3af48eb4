"""An agent on the telephone: keys as turns, as input and pressed by itself; transfer, hanging up."""

import json
import os
from collections.abc import AsyncIterator

from realtime.agents import Agent, CannotSendKeys, CannotTransfer, Turn, hang_up, send_keys, transfer_to

PLACES = {"sales": "+15550009999"}
agent = Agent(stt="instant", keys_as_turns=True, tools=[hang_up, send_keys, transfer_to(PLACES)])
model = Agent("You help.", name="model", stt="instant", chat="embedded", tools=[hang_up, transfer_to(PLACES)])


def note(turn: Turn, what: str, **more: object) -> None:
    with open(os.environ["BOT_NOTES"], "a") as file:
        print(json.dumps({"session": turn.session.id, "what": what, **more}), file=file, flush=True)


@agent.turn
async def answer(turn: Turn) -> AsyncIterator[str]:
    note(turn, "turn", text=turn.text)
    if turn.text.endswith(": 1]"):
        yield "Your code, please."
        note(turn, "code", keys=await turn.session.keys(count=2, timeout=10))
        yield "Thank you."
    elif turn.text.endswith(": 2]"):
        try:
            await turn.session.send_keys("12,#", at_once=True)
            note(turn, "keys were sent")
        except CannotSendKeys as error:
            note(turn, "no keys", why=str(error))
        yield "Pressed."
    elif turn.text == "hello":
        try:
            await turn.transfer(PLACES["sales"])
        except CannotTransfer as error:
            note(turn, "no transfer", why=str(error))
        yield "I connect you."
