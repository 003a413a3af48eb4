"""Webhooks of real calls: what is told, what is asked, and what a killed server still delivers."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import orjson
import pytest
from streamdouble.scenario import Wait, WaitFor

from realtime.client import connect
from realtime.local import STORE_FILE
from tests.calls import phone
from tests.calls.server import API_KEY, Server, free_port
from tests.media.webrtc import until
from tests.realtime.observe.receiver import SECRET, Receiver, answer, receiver

CONFIG = """
[webhooks]
url = "{url}"
secret = "env:WEBHOOK_SECRET"

[agents.sales]
instructions = "You sell to {{{{name}}}}."
greeting = "Hello {{{{name}}}}."
"""


@pytest.fixture
async def hooks() -> AsyncIterator[Receiver]:
    async with receiver() as found:
        yield found


def serving(folder: Path, url: str) -> Server:
    environ = {"WEBHOOK_SECRET": SECRET}
    return Server(folder, "--engines", "instant", config=CONFIG.format(url=url), environ=environ)


async def transcript(server: Server, session_id: str) -> Any:
    return await server.get(f"/v1/ai/realtime/sessions/{session_id}/transcript")


async def test_a_call_is_told_from_its_beginning_to_its_end(hooks: Receiver, tmp_path: Path) -> None:
    chosen = answer("200 OK", b'{"agent": "sales", "variables": {"name": "Ada"}}')
    with serving(tmp_path, hooks.url) as server:
        hooks.script.append(chosen)
        async with connect(server.url, api_key=API_KEY, transport="webrtc") as call:
            created = await call.wait_for("session.created")
            assert created["session"]["instructions"] == "You sell to Ada."
            greeting = await call.wait_for("response.output_audio_transcript.done")
            assert greeting["transcript"] == "Hello Ada."
            await call.say("How are you?")
            while (await call.wait_for("response.done"))["response"]["status"] != "completed":
                pass
        await hooks.until(lambda: len(hooks.taken) == 3)
        incoming, started, ended = hooks.taken
        kept = await transcript(server, ended["data"]["session_id"])

        async with connect(server.url, api_key=API_KEY, agent="sales") as call:
            await call.wait_for("session.created")
        await hooks.until(lambda: len(hooks.taken) == 5)
        log = server.log()

    assert [incoming["type"], started["type"], ended["type"]] == ["call.incoming", "call.started", "call.ended"]
    assert incoming["data"]["agent"] == "default"
    assert started["data"]["agent"] == "sales"
    assert started["data"]["variables"] == {"name": "Ada"}
    assert started["data"]["caller"]["kind"] == "webrtc"
    data = ended["data"]
    assert data["session_id"] == started["data"]["session_id"] == incoming["data"]["session_id"]
    assert data["reason"] == "hangup"
    assert data["ended_at"] >= data["opened_at"]
    said = [(item["role"], item["text"]) for item in data["transcript"]]
    assert ("user", "How are you?") in said  # of the rest only what was heard before the caller hung up
    assert {turn["status"] for turn in data["turns"]} <= {"completed", "cancelled"}
    assert "voice_to_voice_ms" in data["turns"][0]
    assert kept == data
    assert data["cost"]["usd"] == 0.0  # embedded and instant engines are free, and said to be
    assert "tts" in {part["kind"] for part in data["cost"]["engines"]}  # the greeting
    assert sum(turn["cost_usd"] for turn in data["turns"]) == 0.0
    # The second call's token named an agent: nobody was asked.
    assert hooks.kinds()[3:] == ["call.started", "call.ended"]
    assert SECRET.removeprefix("whsec_") not in log


async def test_a_receiver_that_is_slow_keeps_a_caller_a_second_and_then_the_default_answers(
    hooks: Receiver, tmp_path: Path
) -> None:
    with serving(tmp_path, hooks.url) as server:
        hooks.script.append(30.0)
        async with connect(server.url, api_key=API_KEY, transport="websocket") as call:
            await call.wait_for("session.created")
        await hooks.until(lambda: len(hooks.taken) == 2)
    assert hooks.taken[0]["data"]["agent"] == "default"


async def test_what_a_killed_server_had_promised_the_next_one_delivers(tmp_path: Path) -> None:
    async with receiver() as down:
        port = down.port
    with serving(tmp_path, f"http://127.0.0.1:{port}/hooks") as server:
        async with connect(server.url, api_key=API_KEY, transport="websocket") as call:
            await call.wait_for("session.created")
        await _promised(tmp_path, 2)
        os.kill(server.pid, signal.SIGKILL)
    async with receiver(port=port) as hooks:
        with serving(tmp_path, hooks.url):
            await hooks.until(lambda: len(hooks.taken) == 2)
    assert hooks.kinds() == ["call.started", "call.ended"]


async def _promised(folder: Path, count: int) -> None:
    """Wait until the store holds this many messages."""
    file = folder / "data" / STORE_FILE

    def holds() -> bool:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as reading:
            (found,) = reading.execute("SELECT count(*) FROM entries WHERE key LIKE 'webhook:due:%'").fetchone()
        return bool(found == count)

    await until(holds, f"{count} messages are in the store", 10.0)


EXAMPLE = Path(__file__).parents[2] / "examples" / "call-records"


@pytest.fixture
def keeper(tmp_path: Path) -> Iterator[int]:
    """The port of the example's receiver."""
    port = free_port()
    environ = {**os.environ, "WEBHOOK_SECRET": SECRET, "CALLS": str(tmp_path / "calls")}
    command = [sys.executable, "-m", "uvicorn", "receiver:app", "--port", str(port), "--log-level", "warning"]
    with subprocess.Popen(command, cwd=EXAMPLE, env=environ) as receiving:
        yield port
        receiving.terminate()


async def test_the_examples_receiver_keeps_words_cost_and_sound_of_calls_of_every_kind(
    keeper: int, tmp_path: Path
) -> None:
    config = (EXAMPLE / "realtime.toml").read_text().replace(":9000/", f":{keeper}/") + phone.CONFIG
    environ = {"WEBHOOK_SECRET": SECRET, **phone.ENVIRON}
    with Server(tmp_path / "server", "--engines", "instant", config=config, environ=environ) as server:

        async def talk(transport: Literal["webrtc", "websocket"]) -> None:
            async with connect(server.url, api_key=API_KEY, transport=transport) as call:
                if transport == "websocket":
                    await call.wait_for("response.done")
                heard = 0
                async for pcm, _ in call.audio():
                    if (heard := heard + len(pcm)) > 48_000:
                        break

        greeted = phone.ring(server, WaitFor("audio"), Wait(2.0), max_drain_s=0.2)
        await asyncio.gather(talk("webrtc"), talk("websocket"), greeted)
        calls = tmp_path / "calls"
        await until(lambda: len(list(calls.glob("*/call.json"))) == 3, "the calls were kept", 20)
    kept = [orjson.loads(file.read_bytes()) for file in calls.glob("*/call.json")]
    assert {call["caller"]["kind"] for call in kept} == {"webrtc", "websocket", "phone"}
    for call in kept:
        assert call["transcript"][0]["text"].startswith("This call"), "as far as it was heard"
        assert call["cost"]["usd"] == 0.0
        assert (calls / call["session_id"] / "call.ogg").read_bytes()[:4] == b"OggS"
