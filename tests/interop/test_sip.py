"""SIP calls for real: baresip dials an account that janus has registered at kamailio, and talks with this server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import websockets

from media.audio import Pcm
from media.resample import Resampler
from tests.calls.caller import clip
from tests.calls.conftest import HOW_ARE_YOU, WEATHER
from tests.calls.server import API_KEY, Server, free_port
from tests.interop import sip_world
from tests.interop.sip_world import Phone, Wire, is_loud
from tests.media.webrtc import rms, until

pytestmark = pytest.mark.timeout(120)

GREETING = (
    "Good day, and thank you for calling the museum of clocks, watches and other machines that tell the time. "
    "We are open every day of the week but Monday, from ten in the morning until six in the evening, and on Fridays "
    "until nine. The guided tour begins at the great hall on the hour."
)
CONFIG = f"""
[agents.default]
greeting = "{GREETING}"
call_tools = ["hang_up"]
[agents.sales]
instructions = "The caller is {{{{caller_number}}}}."
"""


@dataclass(frozen=True)
class World:
    server: Server
    folder: Path
    address: str
    number: str
    """What is dialled: the account at the registrar."""

    def phone(self, name: str, *voice: Pcm) -> Phone:
        return Phone(self.folder / name, self.address, self.number, np.concatenate(voice))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    pytest.importorskip("pocketsphinx", reason="words need the extra `local`")
    sip_world.needs("baresip", "janus", "kamailio")
    folder, address = tmp_path_factory.mktemp("sip"), sip_world.own_address()
    sip_port, janus_port = free_port(), free_port()
    account = f"sip:bot@{address}:{sip_port}"
    with (
        sip_world.registrar(folder, address, sip_port),
        sip_world.gateway(folder, address, janus_port),
        Server(folder / "server", config=CONFIG) as server,
        sip_world.bridge(folder, server, janus_port, account, "--proxy", f"sip:{address}:{sip_port}"),
    ):
        yield World(server, folder, address, account)


def silence(seconds: float) -> Pcm:
    return np.zeros(round(8000 * seconds), np.int16)


def voice(path: Path) -> Pcm:
    return Resampler(16_000, 8_000).push(clip(path))


async def call_of(server: Server) -> str:
    """The session of the one call that is up."""
    await server.until_calls(1, 10)
    return str((await server.sessions())[0]["session_id"])


async def words(server: Server, session: str) -> list[tuple[str, str]]:
    """Who said what so far."""
    entries = (await server.get(f"/v1/ai/realtime/sessions/{session}/transcript"))["transcript"]
    return [(entry["role"], entry["text"]) for entry in entries]


async def test_a_telephone_call_from_ring_to_bye(world: World) -> None:
    phone = world.phone("talks", silence(3), voice(WEATHER), silence(60))
    with Wire() as wire:
        phone.dial()
        try:
            session = await call_of(world.server)
            await until(lambda: sum(is_loud(data) for _, data in wire.to_phone) > 50, "the greeting is heard", 10)
            await until(lambda: any(is_loud(data) for _, data in wire.from_phone), "the caller begins to speak", 10)
            # Speech over the bot silences the phone.
            began = next(at for at, data in wire.from_phone if is_loud(data))
            await until(lambda: wire.to_phone[-1][0] < time.monotonic() - 0.3, "silence at the phone", 5)
            silenced = wire.to_phone[-1][0] - began
            print(f"talking over it silenced the phone after {1000 * silenced:.0f} ms")
            assert silenced < 2 * 0.3  # half of that is promised
            # It was understood, and is answered.
            answer_from = time.monotonic()
            await until(
                lambda: sum(is_loud(data) for at, data in wire.to_phone if at > answer_from) > 50, "an answer", 15
            )
            hung_up = time.monotonic()
            phone.hang_up()
            await world.server.until_calls(0, 2)  # a second is promised
            print(f"BYE freed everything after {1000 * (time.monotonic() - hung_up):.0f} ms")
        finally:
            phone.close()
    said = await words(world.server, session)
    assert ("user", "what is the weather like in london tomorrow") in said
    assert rms(phone.heard()) > 500, "in baresip's own recording"


async def test_the_server_hangs_up_the_phone(world: World) -> None:
    phone = world.phone("is_hung_up", silence(60))
    phone.dial()
    try:
        session = await call_of(world.server)
        sip_world.wait_for_text(phone.log, "Call established")
        status, _, _ = await world.server.request("DELETE", f"/v1/ai/realtime/sessions/{session}")
        assert status == 204
        sip_world.wait_for_text(phone.log, "session closed", seconds=2)  # a second is promised
    finally:
        phone.close()


KEY = "input_audio_buffer.dtmf_event_received"
GOODBYE = (
    {"type": "output_audio_buffer.clear"},  # no more of the greeting
    {
        "type": "conversation.item.create",
        "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hang up now"}]},
    },
    {"type": "response.create"},
)


async def test_keys_of_the_phone_are_told_and_the_model_hangs_it_up(world: World) -> None:
    phone = world.phone("presses", silence(60))
    phone.dial()
    try:
        await call_of(world.server)
        [call] = await world.server.sessions()
        sip_world.wait_for_text(phone.log, "Call established")
        async with websockets.connect(
            f"{world.server.url.replace('http', 'ws')}/v1/realtime?call_id={call['call_id']}",
            additional_headers={"Authorization": f"Bearer {API_KEY}"},
        ) as sideband:
            for key in "4#42":
                await asyncio.to_thread(phone.press, key)
                async with asyncio.timeout(5):
                    while (event := json.loads(await sideband.recv()))["type"] != KEY:
                        pass
                assert event["event"] == key
            for message in GOODBYE:
                await sideband.send(json.dumps(message))
            async with asyncio.timeout(20):
                async for _ in sideband:  # until the call is over
                    pass
            sip_world.wait_for_text(phone.log, "session closed", seconds=2)
        await world.server.until_calls(0, 2)
    finally:
        phone.close()
    assert await world.server.ended("agent_hangup") == 1


async def test_a_line_is_free_again_and_two_calls_do_not_meet(world: World) -> None:
    first = world.phone("first", silence(60))
    second = world.phone("second", silence(1), voice(HOW_ARE_YOU), silence(60))
    first.dial()
    second.dial()
    try:
        await world.server.until_calls(2, 10)
        first.close()
        await world.server.until_calls(1, 2)
        sip_world.wait_for_text(second.log, "Call established")
    finally:
        first.close()
        second.close()
    await world.server.until_calls(0, 2)
