"""Turns that a developer's own code answers, its hooks and hand-over, and what it does wrong, in real calls."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.calls.bot import SPOKEN, Bot, spoken
from tests.calls.caller import Caller, clip, dial
from tests.calls.conftest import HOW_ARE_YOU
from tests.calls.neighbour import Neighbour
from tests.media.webrtc import until

BOT = Path(__file__).parent / "bots" / "turns.py"
SORRY = "I am so sorry."


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    folder = tmp_path_factory.mktemp("turns")
    with Bot(folder, str(BOT), environ={"BOT_NOTES": str(folder / "notes")}) as running:
        yield running


@pytest.fixture
async def caller(bot: Bot) -> AsyncIterator[Caller]:
    async with dial(bot, agent="own") as caller:
        yield caller


async def test_a_generator_answers_and_reads_what_was_said(bot: Bot, caller: Caller) -> None:
    caller.ask("Good morning")
    assert await spoken(caller) == "You said Good morning."
    await caller.wait_for("output_audio_buffer.stopped")
    caller.ask("And again")
    assert await spoken(caller) == "You said And again."
    last = bot.notes(caller.session_id)[-1]
    assert last["history"] == [["user", "Good morning"], ["assistant", "You said Good morning."], ["user", "And again"]]


async def test_who_interrupts_closes_the_generator_and_the_history_holds_what_was_heard(
    bot: Bot, caller: Caller
) -> None:
    caller.ask("Count please")
    await until(lambda: len(caller.sound()) > 48_000, "a second of it was heard", 15)
    await caller.microphone.say(clip(HOW_ARE_YOU))
    await until(lambda: len([n for n in bot.notes(caller.session_id) if n["what"] == "turn"]) == 2, "answered", 15)
    assert bot.done(caller.session_id).count("count was closed") == 1
    heard = [text for role, text in bot.notes(caller.session_id)[-1]["history"] if role == "assistant"]
    assert len(heard) == 1
    assert heard[0].startswith("This is")
    assert len(heard[0]) < 200, "sixty sentences were given, seconds were heard"


async def test_the_configured_model_in_the_middle_of_a_turn_with_tools(bot: Bot, caller: Caller) -> None:
    caller.ask("chat are there free tables?")
    await until(lambda: "A table at eight." in "".join(said(caller)), "the model answered with the tool's result", 15)
    assert said(caller)[0].startswith("Let me see.")
    assert bot.done(caller.session_id) == ["turn", "free_tables"]


async def test_a_sentence_can_be_said_before_what_is_yielded(caller: Caller) -> None:
    caller.ask("say it")
    assert await spoken(caller) == "First this. Then that."


@pytest.mark.parametrize(
    ("word", "heard", "place"),
    [
        ("raise", f"It begins well.  {SORRY}", " in answer"),
        ("hang", f" {SORRY}", "bots/turns.py:"),
        ("block", f" {SORRY}", "bots/turns.py:"),
        ("number", f" {SORRY}", "a turn yields text, not int"),
        ("transfer", f" {SORRY}", "not held by a carrier that passes calls on"),
    ],
)
async def test_code_that_fails_is_apologised_for_and_named_and_the_next_turn_is_answered(
    bot: Bot, word: str, heard: str, place: str
) -> None:
    async with dial(bot, agent="own") as caller:
        before = len(bot.log())
        caller.ask(word)
        assert (await spoken(caller)).split() == heard.split()
        line = next(line for line in bot.log()[before:].splitlines() if "the turn failed at" in line)
        assert "tests/calls/bots/turns.py:" in line
        assert place in bot.log()[before:]
        assert "the secret reason" not in json.dumps(caller.events)
        if word == "block":
            await until(lambda: "the agents' event loop goes on" in bot.log()[before:], "it blocks no more", 15)
            assert "the agents' event loop has been held up" in bot.log()[before:]
        caller.ask("Good morning")
        assert await spoken(caller) == "You said Good morning."


async def test_a_flood_of_text_is_stopped_apologised_for_and_named(bot: Bot, caller: Caller) -> None:
    caller.ask("flood")
    done = (await caller.wait_for("response.done"))["response"]
    assert (done["status"], done["status_details"]["error"]["code"]) == ("failed", "turn_too_long")
    apology = await caller.wait_for(SPOKEN)
    assert apology["transcript"] == SORRY
    while (await caller.wait_for("output_audio_buffer.stopped"))["response_id"] != apology["response_id"]:
        """What was said of the flood is heard before."""
    assert "the turn floods text at tests/calls/bots/turns.py:" in bot.log()
    caller.ask("Good morning")
    assert await spoken(caller) == "You said Good morning."


async def test_others_hear_every_packet_while_code_blocks_floods_and_does_not_stop(bot: Bot) -> None:
    with Neighbour(bot) as neighbour:
        for word in ("block", "flood", "deaf"):
            async with dial(bot, agent="own") as caller:
                caller.ask(word)
                if word == "deaf":
                    await until(lambda: "deaf" in bot.done(caller.session_id), "it runs", 15)
                else:
                    await caller.wait_for("response.output_audio_transcript.delta")
                caller.send({"type": "response.cancel"})
                await caller.wait_for("response.done")
                caller.ask("Good morning")
                assert await spoken(caller) == "You said Good morning."
                await asyncio.to_thread(neighbour.check)
        await asyncio.to_thread(neighbour.end)


async def test_the_call_ends_when_the_farewell_was_heard(bot: Bot, caller: Caller) -> None:
    before = await bot.ended("agent_hangup")
    caller.ask("bye")
    assert await spoken(caller) == "Goodbye."
    await caller.wait_for("output_audio_buffer.stopped")
    await bot.until_calls(0)
    assert await bot.ended("agent_hangup") == before + 1


async def test_another_agent_takes_over_with_a_summary(caller: Caller) -> None:
    caller.ask("sales please")
    assert await spoken(caller) == "I connect you."
    assert await spoken(caller) == "Sales speaking."
    assert [event["session"]["instructions"] for event in caller.of("session.updated")] == ["You sell."]
    notes = [event["item"] for event in caller.of("conversation.item.done") if event["item"].get("role") == "system"]
    assert [note["content"][0]["text"] for note in notes] == ["The call so far: The caller wants a boat."]
    caller.ask("hello")
    assert "How can I help you" in await spoken(caller), "the model of the other agent answers"


async def test_hooks_at_the_beginning_and_the_end_of_a_call(bot: Bot) -> None:
    async with dial(bot, agent="hooked") as caller:
        assert caller.events[0]["session"]["instructions"] == "You serve Ada. Be kind."
        assert await spoken(caller) == "Hello Ada."
        await caller.wait_for("output_audio_buffer.stopped")
    await until(lambda: bot.done(caller.session_id) == ["end"], "the hook was called", 15)
    (record,) = bot.notes(caller.session_id)
    assert record["reason"] == "hangup"
    assert [line["text"] for line in record["transcript"]] == ["Hello Ada."]


async def test_a_caller_who_says_nothing_is_asked_and_then_left(bot: Bot) -> None:
    async with dial(bot, agent="quiet") as caller:
        assert await spoken(caller) == "Are you there?"
        await bot.until_calls(0)
    assert bot.done(caller.session_id) == ["idle", "idle"]


def said(caller: Caller) -> list[str]:
    return [event["transcript"] for event in caller.of("response.output_audio_transcript.done")]
