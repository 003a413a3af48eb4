"""Calls of each carrier on a running server, over a real socket: heard, answered, cut, ended."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import orjson
import pytest
import websockets

from tests.calls import carriers, dialects
from tests.calls.carriers import Phone
from tests.calls.conftest import HOW_ARE_YOU
from tests.calls.dialects import Asterisk, AudioSocket, Dialect, Telnyx, Vonage
from tests.calls.server import API_KEY, Server, free_port
from tests.media.webrtc import loudest_hz

TELNYX, TELNYX_ALAW, VONAGE = Telnyx(), Telnyx("/v1/ai/realtime/telephony/alaw", "PCMA"), Vonage()
AUDIOSOCKET = AudioSocket(free_port())
DIALECTS: dict[str, Dialect] = {
    "telnyx": TELNYX,
    "telnyx-alaw": TELNYX_ALAW,
    "vonage": VONAGE,
    "asterisk": Asterisk(),
    "asterisk-json": Asterisk(as_json=True),
    "audiosocket": AUDIOSOCKET,
}
CUT = ["telnyx", "vonage", "asterisk", "audiosocket"]
CONFIG = """
[agents.sales]
instructions = "You sell to {{caller_number}}, who has plan {{plan}}."

[telephony.telnyx]
secret = "env:TELNYX_PUBLIC_KEY"
numbers = {"+15552223333" = "sales"}

[telephony.alaw]
carrier = "telnyx"
codec = "pcma"
secret = "env:ALAW_PUBLIC_KEY"

[telephony.vonage]
secret = "env:VONAGE_SIGNATURE_SECRET"

[telephony.asterisk]
secret = "env:ASTERISK_PASSWORD"

[telephony.audiosocket]
secret = "env:AUDIOSOCKET_SECRET"
"""
ENVIRON = {
    "TELNYX_PUBLIC_KEY": TELNYX.public_key,
    "ALAW_PUBLIC_KEY": TELNYX_ALAW.public_key,
    "VONAGE_SIGNATURE_SECRET": Vonage.secret,
    "ASTERISK_PASSWORD": Asterisk.secret,
    "AUDIOSOCKET_SECRET": AudioSocket.secret,
}


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("carriers")
    with Server(folder, "--engines", "instant", config=CONFIG, environ=ENVIRON) as running, listener(running):
        yield running


@contextmanager
def listener(server: Server) -> Iterator[None]:
    """`realtime audiosocket` beside the server."""
    config = str(server.folder / "realtime.toml")
    options = ["--port", str(AUDIOSOCKET.port), "--url", server.url, "--config", config]
    with (server.folder / "listener.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "realtime.cli", "audiosocket", *options],
            env={**os.environ, **ENVIRON},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            end = time.monotonic() + 30
            while "listening" not in (server.folder / "listener.log").read_text():
                assert process.poll() is None
                assert time.monotonic() < end, "the listener did not start"
                time.sleep(0.05)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0


@dataclass
class Cut:
    """The caller spoke over the answer: since `began`; `heard_s` of it had sounded by then."""

    phone: Phone
    began: float

    @property
    def stopped_at(self) -> float:
        return self.phone.flushed_at[0] if self.phone.flushed_at else self.phone.arrived[-1][0]

    @property
    def heard_ms(self) -> float:
        assert self.phone.first_heard is not None
        return (self.stopped_at - self.phone.first_heard) * 1000


async def whole_call(line: Server, name: str) -> Phone:
    async with carriers.ring(line, DIALECTS[name], f"whole-{name}") as phone:
        phone.say(HOW_ARE_YOU)
        await phone.answered()
        return phone


async def cut_call(line: Server, name: str) -> Cut:
    async with carriers.ring(line, DIALECTS[name], f"cut-{name}") as phone:
        phone.say(HOW_ARE_YOU)
        await phone.until(lambda: phone.first_heard, "an answer")
        await asyncio.sleep(1.0)
        began = time.monotonic()
        phone.say(HOW_ARE_YOU)
        if name == "audiosocket":
            await phone.until(lambda: time.monotonic() - phone.arrived[-1][0] > 0.4, "silence")
        else:
            await phone.until(lambda: phone.flushed_at, "the flush")
            await asyncio.sleep(0.4)
        return Cut(phone, began)


@dataclass
class Calls:
    whole: dict[str, Phone]
    cut: dict[str, Cut]


@pytest.fixture(scope="module")
def calls(line: Server) -> Calls:
    """Every call at once: a whole one of each dialect, and some that are cut."""

    async def all_at_once() -> Calls:
        whole = [whole_call(line, name) for name in DIALECTS]
        async with asyncio.TaskGroup() as group:
            cut = {name: group.create_task(cut_call(line, name)) for name in CUT}
            phones = await asyncio.gather(*whole)
        await line.until_calls(0)
        return Calls(dict(zip(DIALECTS, phones, strict=True)), {name: task.result() for name, task in cut.items()})

    return asyncio.run(all_at_once())


@pytest.mark.parametrize("name", DIALECTS)
def test_a_caller_speaks_and_hears_the_whole_answer(calls: Calls, name: str) -> None:
    phone = calls.whole[name]
    heard = np.concatenate([pcm for _, pcm in phone.arrived])
    assert 4.9 < len(heard) / phone.dialect.rate < 5.1
    assert abs(loudest_hz(heard, phone.dialect.rate) - 440) < 5
    assert phone.marks_answered > 5 or name == "audiosocket"


@pytest.mark.parametrize("name", CUT)
def test_who_talks_over_the_bot_silences_it(calls: Calls, name: str) -> None:
    cut = calls.cut[name]
    assert cut.stopped_at - cut.began < 2.0, "the clip begins with a breath, and voice takes a quarter of a second"
    late = [at for at, _ in cut.phone.arrived if 0 < at - cut.stopped_at < 0.4]
    assert late == [], "nothing of the old answer comes after the flush"
    if name == "audiosocket":
        sent = sum(len(pcm) for at, pcm in cut.phone.arrived if at < cut.began) / 8000
        assert sent < 1.3, "no more than a frame or two is sent ahead"


def test_the_turns_keep_what_was_heard(calls: Calls, line: Server) -> None:
    kept = sorted(float(ms) for ms in re.findall(r"barge_in_ms=[\d.]+ heard_ms=([\d.]+)", line.log()))
    assert kept == [pytest.approx(ms, abs=250) for ms in sorted(cut.heard_ms for cut in calls.cut.values())]


async def test_a_call_that_the_server_ends_ends_at_the_phone(line: Server) -> None:
    for name in ("asterisk", "audiosocket", "telnyx"):
        async with carriers.ring(line, DIALECTS[name], f"end-{name}") as phone:
            await line.until_calls(1)
            [call] = await line.sessions()
            await line.request("DELETE", f"/v1/ai/realtime/sessions/{call['session_id']}")
            await phone.hung_up()
            await line.until_calls(0)


@pytest.mark.parametrize("name", DIALECTS)
async def test_the_session_knows_who_called_whom_and_hears_keys(line: Server, name: str) -> None:
    async with carriers.ring(line, DIALECTS[name], f"key-{name}") as phone:
        await line.until_calls(1)
        [call] = await line.sessions()
        assert call["caller"]["number"].removeprefix("+") == dialects.CALLER.removeprefix("+")
        assert call["caller"]["dialled"].removeprefix("+") == dialects.DIALLED.removeprefix("+")
        assert call["agent"] == ("sales" if name == "telnyx" else "default")
        async with websockets.connect(
            f"{line.url.replace('http', 'ws')}/v1/realtime?call_id={call['call_id']}",
            additional_headers={"Authorization": f"Bearer {API_KEY}"},
        ) as sideband:
            created = orjson.loads(await asyncio.wait_for(sideband.recv(), 5))
            if name == "telnyx":
                assert created["session"]["instructions"] == "You sell to +15550001111, who has plan gold."
            await phone.press("7")
            while (event := orjson.loads(await asyncio.wait_for(sideband.recv(), 5)))["type"] != KEY:
                pass
            assert event["event"] == "7"
    await line.until_calls(0)


KEY = "input_audio_buffer.dtmf_event_received"


async def test_a_refused_socket_is_logged_without_its_number(line: Server) -> None:
    answer = DIALECTS["asterisk"].answer(line.url.replace("http", "ws"))
    with pytest.raises(websockets.InvalidStatus) as refusal:
        await websockets.connect(answer.url, additional_headers={"Authorization": "Basic Ojp4"})
    assert refusal.value.response.status_code == 403
    assert "wrong signature for ws://127.0.0.1" in line.log()


def test_no_number_is_in_the_log(calls: Calls, line: Server) -> None:
    assert dialects.CALLER.removeprefix("+") not in line.log()
    assert dialects.DIALLED.removeprefix("+") not in line.log()
