"""Agents that answer with code of their own: well, badly, and handing over. What happens is written to a file."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from realtime.agents import Agent, Call, Turn

neighbour = Agent(stt="instant", chat="instant", tts="instant")
agent = Agent("Be brief.", name="own", stt="instant", chat="embedded", apology="I am so sorry.", turn_timeout=1.0)
hooked = Agent("You serve {{who}}.", name="hooked", greeting="Hello {{who}}.", chat="embedded")
sales = Agent("You sell.", name="sales", greeting="Sales speaking.", chat="embedded")
quiet = Agent("You say nothing.", name="quiet", chat="embedded")


def note(call: Call, what: str, **more: object) -> None:
    with open(os.environ["BOT_NOTES"], "a") as file:
        print(json.dumps({"session": call.id, "what": what, **more}), file=file, flush=True)


@agent.tool
async def free_tables(call: Call) -> str:
    """Tables that are free."""
    note(call, "free_tables")
    return "A table at eight."


async def count(turn: Turn) -> AsyncIterator[str]:
    try:
        for number in range(60):
            yield f"This is sentence number {number}. "
            await asyncio.sleep(0.01)
        await asyncio.Event().wait()
    finally:
        note(turn.session, "count was closed")


@agent.turn
async def answer(turn: Turn) -> AsyncIterator[str]:
    note(turn.session, "turn", text=turn.text, history=[[said.role, said.text] for said in turn.history])
    match turn.text.split(maxsplit=1)[0].lower() if turn.text else "":
        case "count":
            async for piece in count(turn):
                yield piece
        case "chat":
            yield "Let me see."
            async for piece in turn.chat(text=turn.text.removeprefix("chat ")):
                yield piece
        case "raise":
            yield "It begins well. "
            raise ValueError("the secret reason")
        case "hang":
            await asyncio.Event().wait()
        case "block":
            note(turn.session, "block")
            time.sleep(2.0)  # noqa: ASYNC251
        case "flood":
            while True:
                yield "far too many words " * 500
        case "deaf":
            while True:
                try:
                    note(turn.session, "deaf")
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    note(turn.session, "deaf was told")
                yield "I go on."
        case "number":
            yield 7  # type: ignore[misc]
        case "bye":
            yield "Goodbye."
            turn.hang_up()
        case "sales":
            turn.hand_over(sales, summary="The caller wants a boat.")
            yield "I connect you."
        case "transfer":
            await turn.transfer("+15550009999")
        case "say":
            turn.say("First this.")
            yield "Then that."
        case _:
            yield f"You said {turn.text}."


@hooked.on_call_start
async def begin(call: Call) -> None:
    call.variables["who"] = "Ada"
    call.instructions += " Be kind."


@hooked.on_call_end
def end(call: Call, record: Mapping[str, Any]) -> None:
    note(call, "end", reason=record["reason"], transcript=record["transcript"])


@quiet.on_user_idle(seconds=1)
async def idle(call: Call, seconds: float) -> None:
    note(call, "idle", seconds=seconds)
    if seconds >= 2:
        call.hang_up()
    else:
        call.say("Are you there?")


@quiet.on_key
async def key(call: Call, key: str) -> None:
    note(call, "key", key=key)
