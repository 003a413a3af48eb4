"""On the telephone: a code typed in, which no model sees; passing the call on; hanging up."""

from realtime.agents import Agent, Call, ToolError, hang_up, transfer_to

CODES = {"4711"}

agent = Agent(
    "You are a bank. Check the code before you tell anything.",
    greeting="Your bank.",
    tools=[hang_up, transfer_to({"a colleague": "+15550123"})],
)


@agent.tool(timeout=40, filler="")
async def check_code(call: Call) -> str:
    """Asks the caller to type the code, and checks it."""
    call.say("Please type your code.")
    if await call.keys(count=4, timeout=30) not in CODES:
        raise ToolError("The code is wrong.")
    return "The code is right."
