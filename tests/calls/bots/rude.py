"""Agents whose code does what no code should: it ends the process, closes the loop, cancels itself, floods."""

import asyncio
import sys
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any

from realtime.agents import Agent, Call, Turn

neighbour = Agent(stt="instant", chat="instant", tts="instant")
tools = Agent(name="tools", stt="instant", chat="embedded")
turns = Agent(name="turns", stt="instant", chat="embedded", apology="I am so sorry.", turn_timeout=4.0)


class Unspeakable:
    def __str__(self) -> str:
        raise ValueError("the secret reason")

    __repr__ = __str__


def recursion(depth: int = 0) -> int:
    return recursion(depth + 1) + 1


# --- tools ------------------------------------------------------------------------------------


@tools.tool
async def leave_program() -> str:
    sys.exit("the secret reason")


@tools.tool
def leave_thread() -> str:
    sys.exit("the secret reason")


@tools.tool
async def press_interrupt() -> str:
    raise KeyboardInterrupt


@tools.tool
async def cancel_itself() -> str:
    raise asyncio.CancelledError


@tools.tool
async def cancel_task() -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(5)
    return "never"


@tools.tool
async def raise_base() -> str:
    raise BaseException("the secret reason")


@tools.tool
async def close_loop() -> str:
    asyncio.get_running_loop().close()
    return "closed"


@tools.tool
async def stop_loop() -> str:
    asyncio.get_running_loop().stop()
    return "Stopped it."


@tools.tool
async def cancel_everything() -> str:
    for task in asyncio.all_tasks():
        task.cancel()
    return "Cancelled them."


@tools.tool
async def exit_later() -> str:
    asyncio.get_running_loop().call_soon(sys.exit, 3)
    await asyncio.sleep(0.05)
    return "Still here."


@tools.tool
async def many_megabytes() -> str:
    return "huge " * 10_000_000


@tools.tool
async def many_numbers() -> list[int]:
    return list(range(1_000_000))


@tools.tool
async def no_json() -> object:
    return {"what": Unspeakable()}


@tools.tool
async def endless_json() -> object:
    ring: list[object] = []
    ring.append(ring)
    return ring


@tools.tool
async def half_character() -> str:
    return "half \ud83d of it"


@tools.tool
async def deep_recursion() -> str:
    return str(recursion())


@tools.tool
async def thousand_tasks() -> str:
    for _ in range(1000):
        asyncio.get_running_loop().create_task(asyncio.sleep(3600))
    return "Thousand begun."


@tools.tool
def flood_say(call: Call) -> str:
    refused = 0
    for _ in range(100_000):
        try:
            call.say("And again.")
        except RuntimeError:
            refused += 1
    return f"Refused {refused > 0}."


@tools.tool
async def flood_ask(call: Call) -> str:
    results = await asyncio.gather(*(call.keys(timeout=0.1) for _ in range(10_000)), return_exceptions=True)
    return f"Refused {sum(isinstance(result, RuntimeError) for result in results) > 0}."


@tools.tool
async def say_much(call: Call) -> str:
    call.say("much " * 10_000_000)
    return "Said."


@tools.tool
async def a_generator() -> object:
    return (number for number in range(3))


# --- turns ------------------------------------------------------------------------------------


@turns.turn
async def answer(turn: Turn) -> AsyncIterator[str]:
    match turn.text.lower():
        case "exit":
            sys.exit("the secret reason")
        case "interrupt":
            raise KeyboardInterrupt
        case "cancelled":
            raise asyncio.CancelledError
        case "base":
            raise BaseException("the secret reason")
        case "recursion":
            yield str(recursion())
        case "stop":
            asyncio.get_running_loop().stop()
            yield "Stopped."
        case "bytes":
            yield b"no text"  # type: ignore[misc]
        case "nothing":
            yield None  # type: ignore[misc]
        case "half":
            yield "half \ud83d of it."
        case "say half":
            turn.session.say("half \ud83d of it.")
            turn.say("half \ud83d of it.")
            yield "Said."
        case "empty":
            for _ in range(100_000):
                yield ""
            yield "Empty."
        case "close":
            try:
                yield "First."
                yield "Second."
            except GeneratorExit:
                yield "No."
        case "tasks":
            tasks = [asyncio.create_task(asyncio.sleep(3600)) for _ in range(1000)]
            yield f"{len(tasks)} tasks."
        case "failing task":
            asyncio.get_running_loop().create_task(fail())
            await asyncio.sleep(0.05)
            yield "It failed alone."
        case "failing callback":
            asyncio.get_running_loop().call_soon(recursion)
            await asyncio.sleep(0.05)
            yield "It failed alone."
        case "thread":
            threading.Thread(target=recursion).start()
            yield "Begun."
        case _:
            yield f"You said {turn.text}."


async def fail() -> None:
    raise BaseException("the secret reason")


# --- hooks ------------------------------------------------------------------------------------


def _starting(name: str, does: Any) -> Agent:
    agent = Agent("You serve {{who}}.", name=name, greeting="Hello {{who}}.", variables={"who": "you"})

    @agent.on_call_start
    async def start(call: Call) -> None:
        does(call)

    @agent.on_call_end
    async def end(call: Call, record: Mapping[str, Any]) -> None:
        record["transcript"].clear()
        does(call)

    @agent.on_user_idle(seconds=1)
    async def idle(call: Call, seconds: float) -> None:
        does(call)

    return agent


def _raises(error: BaseException) -> Any:
    def does(call: Call) -> None:
        raise error

    return does


def _sets(**values: object) -> Any:
    def does(call: Call) -> None:
        for name, value in values.items():
            setattr(call, name, value)

    return does


def _puts(value: object) -> Any:
    def does(call: Call) -> None:
        call.variables["who"] = value

    return does


STARTS = {
    "exits": _raises(SystemExit(3)),
    "cancels": _raises(asyncio.CancelledError()),
    "based": _raises(BaseException("the secret reason")),
    "recurses": lambda call: recursion(),
    "numbers": _sets(instructions=5, greeting=5, voice=5),
    "nothing": _sets(instructions=None, greeting=None, voice=None, variables=None),
    "voices": _sets(voice="nobody-has-this-voice"),
    "unspeakable": _puts(Unspeakable()),
    "half": _puts("half \ud83d"),
    "greets_half": _sets(instructions="half \ud83d", greeting="half \ud83d"),
    "floods": _sets(instructions="x" * 20_000_000, greeting="flood. " * 1_000_000),
}
for _name, _does in STARTS.items():
    globals()[_name] = _starting(_name, _does)
