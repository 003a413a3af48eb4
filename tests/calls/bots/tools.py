"""An agent whose tools leave a line in a file for every time they begin and end."""

import asyncio
import json
import os
import time

from realtime.agents import Agent, Call, ToolError

neighbour = Agent(stt="instant", chat="instant", tts="instant")

agent = Agent(
    name="tables",
    instructions="You book tables at {{place}}.",
    variables={"place": "Luigi's"},
    stt="instant",
    chat="embedded",
    filler="One moment please.",
    filler_after=0.4,
)


def note(call: Call, what: str, **more: object) -> None:
    with open(os.environ["BOT_NOTES"], "a") as file:
        print(json.dumps({"session": call.id, "kind": call.caller.kind, "what": what, **more}), file=file, flush=True)


@agent.tool
async def free_tables(call: Call, day: str, people: int) -> list[str]:
    """Times at which a table is free.

    Args:
        day: A day of the week.
        people: How many come.
    """
    note(call, "free_tables", day=day, people=people)
    return ["19:00", "20:30"]


@agent.tool
def hello(call: Call) -> str:
    """Greet whoever says it."""
    note(call, "hello")
    return "Welcome to the restaurant."


@agent.tool(filler="I am still looking.")
async def slow_search(call: Call) -> str:
    note(call, "slow_search begins")
    await asyncio.sleep(1.5)
    note(call, "slow_search ends")
    return "Found at last."


@agent.tool
async def broken_oven(call: Call) -> str:
    raise ValueError("the secret reason")


@agent.tool
async def refuse_politely(call: Call) -> str:
    raise ToolError("We are closed on Mondays.")


@agent.tool(timeout=0.5, filler="")
async def endless_wait(call: Call) -> str:
    await asyncio.Event().wait()
    return "never"


@agent.tool(timeout=1.0, filler="")
async def blocking_code(call: Call) -> str:
    note(call, "blocking_code begins")
    time.sleep(2.0)  # noqa: ASYNC251
    note(call, "blocking_code ends")
    return "Awake again."


@agent.tool(timeout=1.0, filler="")
def spinning_code(call: Call) -> str:
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        pass
    return "Dizzy."


@agent.tool(on_cut="cancel")
async def cancelled_work(call: Call) -> str:
    note(call, "cancelled_work begins")
    try:
        await asyncio.sleep(3)
    except asyncio.CancelledError:
        note(call, "cancelled_work was cancelled")
        raise
    note(call, "cancelled_work ends")
    return "Cancelled work is done."


@agent.tool(on_cut="finish")
async def finished_work(call: Call) -> str:
    note(call, "finished_work begins")
    await asyncio.sleep(1.5)
    note(call, "finished_work ends")
    return "Finished work is done."


@agent.tool(later=True)
async def late_report(call: Call) -> str:
    await asyncio.sleep(1.0)
    return "The report says all is well."
