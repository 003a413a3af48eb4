"""A developer's file changes while calls are held, and is tried without sound."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.calls.bot import Bot, spoken
from tests.calls.caller import dial
from tests.calls.server import API_KEY
from tests.media.webrtc import until

FILE = """
from collections.abc import AsyncIterator

from realtime.agents import Agent, Turn
from words import WORD

agent = Agent("Be brief.", greeting="Version {version}.", stt="instant", tts="embedded")


@agent.turn
async def answer(turn: Turn) -> AsyncIterator[str]:
    yield f"Answer {version}: {{WORD}}."
"""
TYPED = """
from realtime.agents import Agent, hang_up

agent = Agent("Be brief.", greeting="Good day.", chat="embedded", tools=[hang_up])


@agent.tool
async def free_tables(people: int) -> str:
    \"\"\"Tables that are free.\"\"\"
    return f"A table for {people}."
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "bot.py").write_text(FILE.format(version=1))
    (tmp_path / "words.py").write_text("WORD = 'one'")
    return tmp_path


@pytest.fixture
def bot(folder: Path) -> Iterator[Bot]:
    with Bot(folder / "server", str(folder / "bot.py"), "--reload") as running:
        yield running


async def test_a_changed_file_answers_the_next_call_and_a_broken_one_nobody(bot: Bot, folder: Path) -> None:
    async with dial(bot) as old:
        assert await spoken(old) == "Version 1."
        (folder / "words.py").write_text("WORD = 'two'")
        (folder / "bot.py").write_text(FILE.format(version=2))
        await until(lambda: "bot.py is taken up: default" in bot.log(), "the change was taken up", 15)
        (folder / "bot.py").write_text("this is no Python")
        await until(lambda: "bot.py is not taken up" in bot.log(), "the mistake was told", 15)
        assert f"{folder / 'bot.py'}:1: invalid syntax" in bot.log()
        async with dial(bot) as new:
            assert await spoken(new) == "Version 2."
            new.ask("hello")
            assert await spoken(new) == "Answer 2: two."
        old.ask("hello")
        assert await spoken(old) == "Answer 1: one."


async def test_an_agent_is_tried_by_typing(tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text(TYPED)
    with Bot(tmp_path / "server", str(tmp_path / "bot.py")) as bot:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "realtime.cli", "talk", "--text", "--url", bot.url),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "REALTIME_API_KEY": API_KEY},
        )
        async with asyncio.timeout(30):
            out, _ = await process.communicate(b"free tables for 4\n\nhang up\nnobody hears this\n")
    assert out.decode().splitlines() == [
        "bot: Good day.",
        '     free_tables({"people": 4})',
        "     -> A table for 4.",
        "bot: Free tables says: A table for 4.",
        "     hang_up({})",
        "     -> The call ends when your goodbye has been heard.",
        "bot: Hang up says: The call ends when your goodbye has been heard.",
        "the call ended: agent_hangup",
    ]
    assert process.returncode == 0
