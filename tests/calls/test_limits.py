"""What a server takes on and what it does for whom: caps, time limits, agents, greetings, missing engines."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import orjson
import pytest
from websockets.exceptions import InvalidStatus

from tests.calls.caller import Caller, clip, code, dial
from tests.calls.conftest import HOW_ARE_YOU
from tests.calls.server import Server
from tests.calls.test_websocket import dial as open_socket
from tests.media.webrtc import loudest_hz, rms, until

HEARD = "conversation.item.input_audio_transcription.completed"

CONFIG = """
[limits]
calls = 2
audio_ahead_seconds = 2
calls_per_secret = 1

[agents.greeter]
greeting = "Good morning, this is the front desk."
instructions = "You are the front desk."
voice = "sage"

[agents.hasty]
max_call_seconds = 1.5
"""

NO_POCKETSPHINX = '''
"""As on a machine without the extra `local`."""
from importlib.machinery import PathFinder

find = PathFinder.find_spec

def find_others(name, path=None, target=None):
    return None if name.partition(".")[0] == "pocketsphinx" else find(name, path, target)

PathFinder.find_spec = find_others
'''


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Takes two calls and two seconds of sound ahead, and has three agents."""
    with Server(tmp_path_factory.mktemp("small"), "--engines", "instant", config=CONFIG) as running:
        yield running


async def refused(server: Server) -> None:
    """One more call is not taken, and is told when to come again; its token stays good."""
    late = Caller(server, str((await server.token())["token"]))
    try:
        status, headers, body = await late.post(await late.offer())
        assert (status, code(body)) == (503, "full")
        assert 1 <= int(headers["retry-after"]) <= 60
        assert orjson.loads(body)["error"]["retryable"] is True
    finally:
        await late.close()


async def test_the_call_over_the_cap_is_refused_and_those_under_way_do_not_notice(small: Server):
    async with AsyncExitStack() as calls:
        first = await calls.enter_async_context(dial(small, cable=True))
        second = await calls.enter_async_context(dial(small, cable=True))
        for caller in (first, second):
            caller.ask("Talk to me.")
            await caller.wait_for("output_audio_buffer.started")
        assert (await small.request("GET", "/readyz"))[0] == 503
        assert (await small.request("GET", "/healthz"))[0] == 200
        assert (await small.get("/v1/ai/status"))["calls"] == {"active": 2, "limit": 2, "accepting": False}
        for _ in range(10):
            await refused(small)
        assert len(await small.sessions()) == 2
        await first.hang_up()
        assert (await small.request("GET", "/readyz"))[0] == 200
        async with dial(small) as third:
            third.ask("And me?")
            await third.wait_for("output_audio_buffer.started")
            await refused(small)
        await second.wait_for("output_audio_buffer.stopped")
        assert second.cable is not None
        sequences = [packet.sequence for packet in second.cable.packets]
        assert len(sequences) == 250
        assert [(later - sequences[0]) & 0xFFFF for later in sequences] == list(range(250))
        second.orders().finish()


async def test_a_secret_that_is_used_in_many_places_takes_its_share_and_no_more(small: Server):
    _, _, body = await small.request("POST", "/v1/realtime/client_secrets", b"{}", content_type="application/json")
    secret = orjson.loads(body)["value"]
    async with open_socket(small, key=secret) as first:
        await first.receive()
        with pytest.raises(InvalidStatus) as refused:
            async with open_socket(small, key=secret):
                pass
        assert refused.value.response.status_code == 429
        assert "retry-after" in refused.value.response.headers
        caller = Caller(small, secret)
        status, _, body = await caller.post(await caller.offer())
        assert (status, code(body)) == (429, "too_many_calls")
        await caller.close()
        async with dial(small):
            assert len(await small.sessions()) == 2, "others have theirs"
    await small.until_calls(0)
    async with open_socket(small, key=secret) as again:
        await again.receive()


async def test_an_offer_that_is_refused_frees_its_place_again(small: Server):
    for _ in range(5):
        caller = Caller(small, str((await small.token())["token"]))
        status, _, _ = await caller.post("v=0\r\nnonsense\r\n")
        assert status == 400
        await caller.close()
    async with dial(small), dial(small):
        assert len(await small.sessions()) == 2


async def test_ten_offers_at_once_for_two_places(small: Server):
    callers = [Caller(small, str((await small.token())["token"])) for _ in range(10)]
    try:
        answers = await asyncio.gather(*[caller.post(await caller.offer()) for caller in callers])
        assert sorted(status for status, _, _ in answers) == [201] * 2 + [503] * 8
        assert len(await small.sessions()) == 2
    finally:
        await asyncio.gather(*(caller.close() for caller in callers))
    assert await small.sessions() == []


async def test_a_call_ends_when_its_time_is_up(small: Server):
    before = await small.ended("max_duration")
    async with dial(small, agent="hasty") as caller:
        began = time.monotonic()
        caller.ask("Talk as long as you can.")
        await asyncio.wait_for(caller.over.wait(), 3 * 1.5)
        assert time.monotonic() - began > 1.0
        assert await small.ended("max_duration") == before + 1
        assert await small.sessions() == []


async def test_a_greeting_is_said_before_anybody_has_spoken(small: Server):
    async with dial(small, agent="greeter") as caller:
        done = (await caller.wait_for("response.done"))["response"]
        assert done["output"][0]["content"][0]["transcript"] == "Good morning, this is the front desk."
        await until(lambda: rms(caller.sound()[-4800:]) > 1000, "the greeting was heard")
        assert loudest_hz(caller.sound()[-9600:], 48_000) == pytest.approx(440, abs=10)
        # It is cut like any answer when the caller speaks.
        await caller.microphone.say(clip(HOW_ARE_YOU)[:17_600])
        await caller.wait_for("output_audio_buffer.cleared")


async def test_the_token_says_which_agent_answers(small: Server):
    minted = await small.token(agent="greeter")
    assert (minted["agent"], minted["voice"]) == ("greeter", "sage")
    async with dial(small, token=str(minted["token"])) as caller:
        session = caller.events[0]["session"]
        assert session["instructions"] == "You are the front desk."
        assert session["audio"]["output"]["voice"] == "sage"
        (listed,) = await small.sessions()
        assert (listed["agent"], listed["session_id"]) == ("greeter", minted["session_id"])
    async with dial(small) as caller:
        assert caller.events[0]["session"]["instructions"] == ""
        assert (await small.sessions())[0]["agent"] == "default"
    body = orjson.dumps({"agent": "greter"})
    status, _, body = await small.request("POST", "/v1/ai/realtime/token", body, content_type="application/json")
    assert status == 422
    assert "greeter" in orjson.loads(body)["error"]["message"]


async def test_a_token_may_set_the_session_within_what_the_agent_allows(small: Server):
    wish = {"type": "realtime", "instructions": "Answer in rhyme.", "output_modalities": ["text"]}
    async with dial(small, session=wish, voice="alloy") as caller:
        session = caller.events[0]["session"]
        assert session["instructions"] == "Answer in rhyme."
        caller.ask("Hello.")
        done = (await caller.wait_for("response.done"))["response"]
        assert done["output"][0]["content"][0]["type"] == "output_text"
        assert not caller.of("output_audio_buffer.started")


async def test_without_a_recogniser_no_words_are_invented(tmp_path: Path):
    (tmp_path / "sitecustomize.py").write_text(NO_POCKETSPHINX)
    path = os.pathsep.join(part for part in (str(tmp_path), os.environ.get("PYTHONPATH")) if part)
    with Server(tmp_path / "server", environ={"PYTHONPATH": path}) as server:
        assert "pip install 'infrai-realtime[local]'" in server.log()
        async with dial(server) as caller:
            await caller.microphone.say(clip(HOW_ARE_YOU))
            assert (await caller.wait_for(HEARD))["transcript"] == ""
            done = (await caller.wait_for("response.done"))["response"]
            said = done["output"][0]["content"][0]["transcript"]
            await until(lambda: rms(caller.sound()) > 500, "it was said aloud")
    seconds = re.search(r"I heard ([\d.]+) seconds of speech", said)
    assert seconds is not None, said
    assert 1.5 < float(seconds[1]) < 4
    assert "Install the local extra" in said


async def test_an_openai_client_chooses_an_agent_as_its_model(small: Server):
    for path, instructions in (("?model=greeter", "You are the front desk."), ("?model=gpt-realtime", "")):
        async with open_socket(small, path) as socket:
            assert (await socket.receive())["session"]["instructions"] == instructions
    token = str((await small.token())["token"])
    async with open_socket(small, "?model=greeter", key=token) as socket:
        assert (await socket.receive())["session"]["instructions"] == ""


async def test_a_call_says_when_it_expires_and_that_it_has(small: Server):
    async with open_socket(small, "?model=hasty", check=False) as socket:
        expires_at = (await socket.receive())["session"]["expires_at"]
        assert 0 <= expires_at - time.time() + 1 < 3
        assert (await socket.until("error", timeout=4.5))["error"]["code"] == "session_expired"
        async with asyncio.timeout(5):
            await socket.connection.wait_closed()
    assert socket.connection.close_code == 1001


async def test_a_server_that_stops_tells_its_sockets_and_their_sidebands_to_come_again(tmp_path: Path):
    async with AsyncExitStack() as stack:
        with Server(tmp_path, "--engines", "instant") as stopping:
            call = await stack.enter_async_context(open_socket(stopping, check=False))
            id_ = str((await call.receive())["session"]["id"]).replace("sess_", "rtc_")
            sideband = await stack.enter_async_context(open_socket(stopping, f"?call_id={id_}", check=False))
            await sideband.receive()
            reading = asyncio.gather(call.connection.wait_closed(), sideband.connection.wait_closed())
            await asyncio.to_thread(stopping.stop)
            await asyncio.wait_for(reading, 10)
    assert (call.connection.close_code, sideband.connection.close_code) == (1012, 1012)


async def test_how_far_audio_may_be_ahead_is_the_operators_choice(small: Server):
    async with open_socket(small) as socket:
        await socket.receive()
        second = base64.b64encode(bytes(48_000)).decode()
        for number in range(6):
            await socket.send(type="input_audio_buffer.append", audio=second, event_id=f"ev_{number}")
        error = (await socket.until("error"))["error"]
        assert error["code"] == "audio_too_far_ahead"
        assert error["event_id"] in ("ev_3", "ev_4", "ev_5")
        assert "2 s" in error["message"]
