"""What is known of the caller goes into the words; silence is noticed; the end is written down."""

from collections.abc import Mapping
from typing import Any

from realtime.agents import Agent, Call

CUSTOMERS = {"+15550100": "Ada"}
ended: list[str] = []

agent = Agent("You help {{name}}.", greeting="Hello {{name}}.", variables={"name": "stranger"})


@agent.on_call_start
async def begin(call: Call) -> None:
    call.variables["name"] = CUSTOMERS.get(call.caller.number or "", "stranger")


@agent.on_user_idle(seconds=8)
async def idle(call: Call, seconds: float) -> None:
    if seconds < 16:
        call.say("Are you still there?")
    else:
        call.hang_up()


@agent.on_call_end
def end(call: Call, record: Mapping[str, Any]) -> None:
    ended.append(f"{call.variables['name']}: {record['reason']}, {len(record['transcript'])} lines")
    print(ended[-1], flush=True)
