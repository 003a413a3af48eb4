"""An agent whose tools have side effects: each leaves a line for every time it begins, ends or is cancelled."""

import asyncio
import json
import os

from realtime.agents import Agent, Call

agent = Agent(name="effects", stt="instant", chat="embedded", tts="instant")


async def work(call: Call, number: int, seconds: float) -> str:
    note(call, number, "begun")
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        note(call, number, "cancelled")
        raise
    note(call, number, "done")
    return f"Number {number} is done."


def note(call: Call, number: int, what: str) -> None:
    with open(os.environ["BOT_NOTES"], "a") as file:
        print(json.dumps({"session": call.id, "number": number, "what": what}), file=file, flush=True)


@agent.tool
async def charge_card(call: Call, number: int) -> str:
    return await work(call, number, 0.7)


@agent.tool(on_cut="cancel")
async def check_card(call: Call, number: int) -> str:
    return await work(call, number, 1.5)


@agent.tool(later=True)
async def order_goods(call: Call, number: int) -> str:
    return await work(call, number, 1.2)
