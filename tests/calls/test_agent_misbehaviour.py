"""Code of a developer that ends, stops, cancels, floods: it costs one answer of one call, and the log has its line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.calls.bot import Bot, spoken
from tests.calls.bots import rude
from tests.calls.caller import Caller, dial
from tests.calls.neighbour import Neighbour
from tests.media.webrtc import until

BOT = Path(__file__).parent / "bots" / "rude.py"
FAILED = "It failed. There is no result."
SORRY = "I am so sorry."
HERE = "at tests/calls/bots/rude.py:"

TOOLS = {
    "leave_program": FAILED,
    "leave_thread": FAILED,
    "press_interrupt": FAILED,
    "cancel_itself": FAILED,
    "cancel_task": FAILED,
    "raise_base": FAILED,
    "close_loop": FAILED,
    "no_json": FAILED,
    "deep_recursion": FAILED,
    "say_much": FAILED,
    "cancel_everything": FAILED,
    "stop_loop": "Stopped it.",
    "exit_later": "Still here.",
    "thousand_tasks": "Thousand begun.",
    "endless_json": "[[...]]",
    "a_generator": "[0,1,2]",
    "half_character": "half � of it",
    "flood_ask": "Refused True.",
    "flood_say": "Refused True.",
    "many_megabytes": "(cut: the result is longer)",
    "many_numbers": "(cut: the result is longer)",
}
TURNS = {
    "exit": SORRY,
    "interrupt": SORRY,
    "cancelled": SORRY,
    "base": SORRY,
    "recursion": SORRY,
    "bytes": SORRY,
    "nothing": SORRY,
    "stop": "Stopped.",
    "half": "half � of it.",
    "say half": "half � of it. Said.",
    "empty": "Empty.",
    "close": "First. Second.",
    "tasks": "1000 tasks.",
    "failing task": "It failed alone.",
    "failing callback": "It failed alone.",
}
STARTS = {
    **dict.fromkeys(rude.STARTS, "Hello you."),
    "unspeakable": "Hello {{who}}.",
    "half": "Hello half �.",
    "greets_half": "half �",
}


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    with Bot(tmp_path_factory.mktemp("rude"), str(BOT)) as running:
        yield running


@pytest.fixture(scope="module")
def neighbour(bot: Bot) -> Iterator[Neighbour]:
    with Neighbour(bot) as neighbour:
        yield neighbour


async def told(caller: Caller) -> str:
    """What the model reads of the next tool."""
    while (item := (await caller.wait_for("conversation.item.done"))["item"])["type"] != "function_call_output":
        """The caller's own words, the call."""
    return str(item["output"])


async def test_a_tool_that_misbehaves_fails_by_itself(bot: Bot, neighbour: Neighbour) -> None:
    for tool, output in TOOLS.items():
        async with dial(bot, agent="tools") as caller:
            caller.ask(tool.replace("_", " ") + "!")
            assert (await told(caller)).endswith(output), tool
        if output == FAILED and tool != "cancel_everything":
            await until(lambda tool=tool: f"tool {tool} failed {HERE}" in bot.log(), "the log names the line", 15)
        assert "the secret reason" not in json.dumps(caller.events)
    await asyncio.to_thread(neighbour.check)


async def test_a_turn_that_misbehaves_is_apologised_for_and_the_next_one_is_answered(
    bot: Bot, neighbour: Neighbour
) -> None:
    for words, heard in TURNS.items():
        before = len(bot.log())
        async with dial(bot, agent="turns") as caller:
            caller.ask(words)
            assert (await spoken(caller)).strip() == heard, words
            if heard == SORRY:
                assert f"the turn failed {HERE}" in bot.log()[before:], words
            if words != "say half":  # something more is said there
                caller.ask("Good morning")
                assert await spoken(caller) == "You said Good morning."
    await asyncio.to_thread(neighbour.check)


async def test_a_hook_that_misbehaves_keeps_no_call_from_being_answered(bot: Bot, neighbour: Neighbour) -> None:
    for agent, greeting in STARTS.items():
        before = len(bot.log())
        async with dial(bot, agent=agent) as caller:
            assert await spoken(caller) == greeting, agent
            if greeting == "Hello you." and agent != "voices":
                assert f"on_call_start failed {HERE}" in bot.log()[before:], agent
            if agent == "recurses":
                await until(lambda: f"on_user_idle failed {HERE}" in bot.log()[before:], "it was called", 15)  # noqa: B023
        if agent == "recurses":
            await until(lambda: f"on_call_end failed {HERE}" in bot.log()[before:], "it was called", 15)  # noqa: B023
            kept = (await bot.get(f"/v1/ai/realtime/sessions/{caller.session_id}/transcript"))["transcript"]
            assert kept[0]["text"] == greeting, "what a hook does to its record is not done to ours"
    await asyncio.to_thread(neighbour.check)
