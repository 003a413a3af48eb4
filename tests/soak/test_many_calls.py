"""Many calls, at once and one after another: all are served, all end, and the server is then as it was.

Run by `make soak`. Engines are the instant ones, so that what is held is the product's own.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from realtime.client import LiveCall, connect
from realtime.client.talk import read_audio
from tests.calls.server import API_KEY, Server

SPEECH = Path(__file__).parents[1] / "audio" / "synth_flite_slt_how_are_you.wav"
CALLS = 30
SECONDS = 60.0
ONE_AFTER_ANOTHER = 200
WARM_UP = 50
"""Calls after which caches, pools and allocators have their size."""
HEARD = "conversation.item.input_audio_transcription.completed"

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the server's memory is read in /proc"),
    pytest.mark.timeout(300),
]


@dataclass(frozen=True)
class Holds:
    """What the server process holds."""

    memory_mb: float
    files: int
    threads: int
    cpu_s: float

    @classmethod
    def of(cls, server: Server) -> Holds:
        process = Path(f"/proc/{server.pid}")
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        memory_kb, threads = int(status["VmRSS"].split()[0]), int(status["Threads"])
        ticks = sum(int(field) for field in (process / "stat").read_text().rpartition(")")[2].split()[11:13])
        files = len(list((process / "fd").iterdir()))
        return cls(memory_kb / 1024, files, threads, ticks / os.sysconf("SC_CLK_TCK"))

    @classmethod
    async def at_rest(cls, server: Server) -> Holds:
        """Once every call is over and its sockets are closed."""
        await server.until_calls(0, 15)
        await asyncio.sleep(3)
        return cls.of(server)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, "--engines", "instant") as running:
        yield running


async def short_call(server: Server) -> None:
    async with connect(server.url, api_key=API_KEY) as call:
        await call.say("Hello.")
        await call.wait_for("output_audio_buffer.started")


async def long_call(server: Server, until: float, chance: random.Random) -> int:
    """Speak, listen a while, speak over the answer, until it is time to go. How many turns were answered."""
    speech, turns = read_audio(SPEECH), 0
    await asyncio.sleep(chance.uniform(0, 3))
    async with connect(server.url, api_key=API_KEY) as call:
        listening = asyncio.create_task(drain(call))
        while time.monotonic() < until:
            call.send_audio(speech)
            await call.audio_sent()
            await call.wait_for(HEARD)
            await call.wait_for("output_audio_buffer.started")
            turns += 1
            await asyncio.sleep(chance.uniform(0.5, 4))
        stats = call.stats()
        assert stats["packets_lost"] == 0
        assert stats["packets_corrupt"] == 0
    await listening
    return turns


async def drain(call: LiveCall) -> None:
    async for _ in call.audio():
        pass


async def test_thirty_calls_at_once_for_a_minute(server: Server):
    for _ in range(5):
        await short_call(server)
    before = await Holds.at_rest(server)
    until = time.monotonic() + SECONDS
    holding = [asyncio.create_task(long_call(server, until, random.Random(number))) for number in range(CALLS)]
    await asyncio.sleep(SECONDS / 2)
    assert len(await server.sessions()) == CALLS
    during = Holds.of(server)
    lateness = (await server.get("/v1/ai/status"))["load"]["packet_lateness_ms"]
    turns = await asyncio.gather(*holding)
    after = await Holds.at_rest(server)
    cpu = (after.cpu_s - before.cpu_s) / SECONDS
    print(f"turns {sum(turns)}, {cpu:.2f} of a core, packet lateness {lateness} ms\n{before}\n{during}\n{after}")
    assert min(turns) >= 5
    assert during.threads <= before.threads + 2  # calls have none of their own
    assert after.files <= before.files + 2
    assert after.threads <= before.threads + 2
    assert after.memory_mb - before.memory_mb < 40
    assert "Traceback" not in server.log()


async def test_calls_one_after_another_leave_nothing_behind(server: Server):
    for _ in range(WARM_UP):
        await short_call(server)
    before = await Holds.at_rest(server)
    for _ in range(ONE_AFTER_ANOTHER - WARM_UP):
        await short_call(server)
    after = await Holds.at_rest(server)
    print(f"{before}\n{after}")
    assert after.files <= before.files + 2
    assert after.threads <= before.threads
    assert after.memory_mb - before.memory_mb < 6
    assert "Traceback" not in server.log()
