"""An agent that decides by itself when it is recorded."""

from realtime.agents import Agent, Call

agent = Agent("Be brief.", name="hushed", recording=True)


@agent.on_call_start
async def start(call: Call) -> None:
    call.pause_recording()


@agent.on_key
async def pressed(call: Call, key: str) -> None:
    call.resume_recording()
