"""A developer's file changes while calls are held, and is tried without sound."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import websockets
from websockets.asyncio import client as connection

from tests.calls import carriers, dialects
from tests.calls.bot import SPOKEN, Bot, spoken
from tests.calls.caller import dial
from tests.calls.conftest import HOW_ARE_YOU
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
CONFIG = """
[telephony.asterisk]
secret = "env:ASTERISK_PASSWORD"
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
    environ = {"ASTERISK_PASSWORD": dialects.Asterisk.secret}
    with Bot(folder / "server", str(folder / "bot.py"), "--reload", config=CONFIG, environ=environ) as running:
        yield running


@asynccontextmanager
async def socket(bot: Bot) -> AsyncIterator[connection.ClientConnection]:
    headers = {"Authorization": f"Bearer {API_KEY}"}
    async with websockets.connect(f"{bot.url.replace('http', 'ws')}/v1/realtime", additional_headers=headers) as opened:
        yield opened


async def told(opened: connection.ClientConnection) -> str:
    """The next thing that the bot says over a WebSocket, whole."""
    async with asyncio.timeout(20):
        while (event := orjson.loads(await opened.recv()))["type"] != SPOKEN:
            pass
    return str(event["transcript"])


async def asked(opened: connection.ClientConnection) -> str:
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hello"}]}
    await opened.send(orjson.dumps({"type": "conversation.item.create", "item": item}).decode())
    await opened.send('{"type": "response.create"}')
    return await told(opened)


async def heard(bot: Bot, number: str, words: str) -> None:
    """Until these are the last words that the call on the telephone has heard."""
    [call] = [call for call in await bot.sessions() if call["call_id"] == number]
    last: Any = None
    async with asyncio.timeout(20):
        while last != words:
            await asyncio.sleep(0.05)
            lines = (await bot.get(f"/v1/ai/realtime/sessions/{call['session_id']}/transcript"))["transcript"]
            last = lines[-1]["text"] if lines else None


@asynccontextmanager
async def phoned(bot: Bot, name: str) -> AsyncIterator[tuple[carriers.Phone, str]]:
    """A call on the telephone, and its number."""
    before = {call["call_id"] for call in await bot.sessions()}
    async with carriers.ring(bot, dialects.Asterisk(), name) as phone:
        await bot.until_calls(len(before) + 1)
        [number] = {call["call_id"] for call in await bot.sessions()} - before
        yield phone, number


async def change(bot: Bot, folder: Path) -> None:
    (folder / "words.py").write_text("WORD = 'two'")
    (folder / "bot.py").write_text(FILE.format(version=2))
    await until(lambda: "bot.py is taken up: default" in bot.log(), "the change was taken up", 15)
    (folder / "bot.py").write_text("this is no Python")
    await until(lambda: "bot.py is not taken up" in bot.log(), "the mistake was told", 15)
    assert f"{folder / 'bot.py'}:1: invalid syntax" in bot.log()


async def test_a_changed_file_answers_the_next_call_and_a_broken_one_nobody(bot: Bot, folder: Path) -> None:
    """Over WebRTC, the WebSocket and the telephone: a call that is held keeps what it began with."""
    async with dial(bot) as old, socket(bot) as old_socket, phoned(bot, "old") as (old_phone, old_number):
        assert (await spoken(old), await told(old_socket)) == ("Version 1.", "Version 1.")
        await heard(bot, old_number, "Version 1.")
        await change(bot, folder)
        async with dial(bot) as new, socket(bot) as new_socket, phoned(bot, "new") as (new_phone, new_number):
            assert (await spoken(new), await told(new_socket)) == ("Version 2.", "Version 2.")
            await heard(bot, new_number, "Version 2.")
            new.ask("hello")
            new_phone.say(HOW_ARE_YOU)
            assert (await spoken(new), await asked(new_socket)) == ("Answer 2: two.", "Answer 2: two.")
            await heard(bot, new_number, "Answer 2: two.")
        old.ask("hello")
        old_phone.say(HOW_ARE_YOU)
        assert (await spoken(old), await asked(old_socket)) == ("Answer 1: one.", "Answer 1: one.")
        await heard(bot, old_number, "Answer 1: one.")


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
