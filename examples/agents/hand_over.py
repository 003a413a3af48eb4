"""Two agents: the first finds out what the caller wants, the second reads a summary and goes on."""

from realtime.agents import Agent, Call

reception = Agent("Find out what the caller wants.", greeting="Good day, what can I do for you?")
sales = Agent("You sell boats. Be glad.", name="sales", greeting="Sales here, hello!")


@reception.tool
async def connect_sales(call: Call, wish: str) -> str:
    """Connect the caller with sales."""
    call.hand_over(sales, summary=f"The caller wants {wish}.")
    return "Say nothing more."
