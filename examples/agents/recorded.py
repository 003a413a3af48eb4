"""A recorded call: announced first, and silent in the recording while the caller types the card's number."""

from realtime.agents import Agent, Call

agent = Agent(
    "You take payments.",
    greeting="What would you like to pay?",
    recording={"announcement": "This call is recorded.", "retain_seconds": 604800},
)


@agent.tool(timeout=60, filler="")
async def take_card(call: Call) -> str:
    """Asks for the card's number and takes the payment."""
    call.pause_recording()
    call.say("Please type the number of your card.")
    number = await call.keys(count=16, timeout=45)
    call.resume_recording()
    return f"Paid with the card that ends in {number[-4:]}." if len(number) == 16 else "No number was typed."
