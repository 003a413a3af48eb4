"""A caller who interrupts closes the generator of `examples/agents/own_turn.py`, which goes on from what was heard."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from streamdouble.scenario import Wait, WaitFor

from realtime.client import connect
from realtime.client.talk import read_audio
from tests.calls import phone
from tests.calls.bot import SPOKEN, spoken
from tests.calls.caller import clip, dial
from tests.calls.conftest import HOW_ARE_YOU
from tests.calls.server import API_KEY, Server
from tests.interop.test_agents import EXAMPLES, GREETED, on_loopback
from tests.media.webrtc import until

__all__ = ["on_loopback"]

CONFIG = phone.CONFIG + '[live]\nstt = "instant"\n'
LISTENS_S = 3.0
WENT_ON = r"I had come to: (\d+)"


@pytest.fixture(scope="module")
def counting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    bot = str(EXAMPLES / "agents/own_turn.py")
    with Server(tmp_path_factory.mktemp("count"), bot, config=CONFIG, environ=phone.ENVIRON) as server:
        yield server


def went_on(said: str) -> bool:
    """It had come to some number, and not to the end."""
    found = re.search(WENT_ON, said)
    return found is not None and 0 < int(found[1]) < 60


async def test_over_webrtc(counting: Server) -> None:
    async with dial(counting) as caller:
        await spoken(caller)
        await caller.wait_for("output_audio_buffer.stopped")
        caller.ask("Up to 60")
        await caller.wait_for("output_audio_buffer.started")
        before = len(caller.sound())
        await until(lambda: len(caller.sound()) > before + 72_000, "it was heard for a while", 15)
        await caller.microphone.say(clip(HOW_ARE_YOU))
        said = ""
        while "done." not in said.partition("I had")[2]:
            said += await spoken(caller)
        assert went_on(said), said


async def test_over_the_websocket(counting: Server) -> None:
    async with connect(counting.url, api_key=API_KEY, transport="websocket") as call:
        await call.wait_for(SPOKEN)
        await call.say("Up to 60")
        await call.wait_for("response.output_audio_transcript.delta")
        await asyncio.sleep(LISTENS_S)
        call.send_audio(read_audio(Path(HOW_ARE_YOU)))
        said = ""
        while "done." not in said.partition("I had")[2]:
            said += str((await call.wait_for(SPOKEN))["transcript"])
        assert went_on(said), said


async def test_on_the_telephone(counting: Server) -> None:
    steps = [*GREETED, phone.saying(HOW_ARE_YOU), WaitFor("audio"), Wait(1.2), phone.saying(HOW_ARE_YOU), Wait(8.0)]
    report = await phone.ring(counting, *steps)
    assert report.result.violations == []
    (session,) = set(re.findall(r"session=(\w+) agent=", counting.log().rpartition("call started")[2]))
    lines = (await counting.get(f"/v1/ai/realtime/sessions/{session}/transcript"))["transcript"]
    assert went_on(" ".join(line["text"] for line in lines)), lines
