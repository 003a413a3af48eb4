"""Two agents: the first finds out what the caller wants, the second knows it already and goes on from there."""

from realtime.agents import Agent, Call

reception = Agent("Find out what the caller wants.", greeting="Good day, what can I do for you?")
sales = Agent("You sell boats. Be glad.", name="sales", greeting="Sales here, hello! You would like {{wish}}?")


@reception.tool
async def connect_sales(call: Call, wish: str) -> None:
    """Connect the caller with sales."""
    call.variables["wish"] = wish
    call.hand_over(sales, summary=f"The caller wants {wish}.")
