"""Engines that die or fail in the middle of a turn: the turn ends with an error, the next one works."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from realtime.adapters.embedded import recogniser, voice
from tests.calls.caller import Caller, Json, clip, dial
from tests.calls.conftest import HOW_ARE_YOU
from tests.calls.server import Server
from tests.media.webrtc import loudest_hz, rms, until
from tests.vendors.openai_stub import CHAT, SPEECH, TRANSCRIPTIONS, OpenAIStub, Plan

HEARD = "conversation.item.input_audio_transcription.completed"
NOT_HEARD = "conversation.item.input_audio_transcription.failed"

BRIEF = clip(HOW_ARE_YOU)[:16_000]
"""A second of speech, where the words do not matter."""

finds_workers = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="worker processes are found in /proc")


def kill(server: Server, engine: str) -> list[int]:
    """The processes of this engine, which are no more."""
    pids = server.workers(engine)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    return pids


async def failed_response(caller: Caller) -> Json:
    """The `response.done` of a failed response, after which the error itself has come."""
    done = (await caller.wait_for("response.done"))["response"]
    assert done["status"] == "failed"
    assert done["status_details"]["error"]["code"]
    await an_error(caller)
    return done


async def an_error(caller: Caller) -> None:
    error = (await caller.wait_for("error"))["error"]
    assert error["type"] == "server_error"
    assert error["message"]


async def answer_to(caller: Caller, text: str) -> str:
    """A typed question that is answered to its end, aloud."""
    caller.ask(text)
    done = (await caller.wait_for("response.done"))["response"]
    assert done["status"] == "completed", done
    await caller.wait_for("output_audio_buffer.stopped")
    return str(done["output"][0]["content"][0]["transcript"])


# --- worker processes -------------------------------------------------------------------------


@finds_workers
@pytest.mark.skipif(not recogniser.installed(), reason="words need the extra `local`")
async def test_a_recogniser_killed_while_the_caller_speaks_costs_one_turn(server: Server):
    async with dial(server) as caller:
        caller.microphone.start(BRIEF)
        await caller.wait_for("input_audio_buffer.speech_started")
        assert len(kill(server, "pocketsphinx")) >= 1
        failed = await caller.wait_for(NOT_HEARD)
        assert failed["error"]["code"] == "worker_died"
        await an_error(caller)
        assert not caller.of("response.created")
        await caller.microphone.say(clip(HOW_ARE_YOU))
        assert (await caller.wait_for(HEARD))["transcript"].endswith("today")
        await caller.wait_for("output_audio_buffer.started")


@finds_workers
@pytest.mark.skipif(voice.installed()[0] == "tone", reason="there is no voice with a process of its own")
async def test_a_voice_killed_in_the_middle_of_an_answer_costs_that_answer(server: Server):
    async with dial(server) as caller:
        session = caller.session_id
        [engine] = server.workers("voice_engine")
        caller.ask("Please tell me a very long story.")
        # It works in slices, and so is still at its first clause when the beginning of that is heard: between two
        # clauses its death would cost nothing.
        async with asyncio.timeout(20):
            while not caller.of("output_audio_buffer.started"):
                os.kill(engine, signal.SIGCONT)
                await asyncio.sleep(0.01)
                os.kill(engine, signal.SIGSTOP)
                await asyncio.sleep(0.05)
        killed = kill(server, "voice_engine")
        await until(lambda: set(server.workers("voice_engine")) - set(killed), "there is another process")
        done = await failed_response(caller)
        kept = done["output"][0]["content"][0]["transcript"]
        # What had been made is heard to its end or cut off by the next question; nothing hangs.
        caller.send({"type": "output_audio_buffer.clear"})
        await caller.wait_for("output_audio_buffer.cleared", "output_audio_buffer.stopped")
        assert "How can I help you" in await answer_to(caller, "Hello!")
        caller.orders().finish()
    assert f"{session} tts failed: " in server.log()
    assert "signal 9" in server.log()
    assert len(kept.split()) < 60  # of a story of well over a hundred words


@finds_workers
async def test_workers_that_die_between_two_turns_are_not_noticed(server: Server):
    async with dial(server) as caller:
        assert kill(server, "realtime.adapters.embedded")
        await caller.microphone.say(clip(HOW_ARE_YOU))
        heard = await caller.wait_for(HEARD)
        await caller.wait_for("output_audio_buffer.started")
        assert not caller.of("error")
    if recogniser.installed():
        assert heard["transcript"].endswith("today")


# --- a vendor ---------------------------------------------------------------------------------

VENDOR = """
[vendors.stub]
base_url = "{url}"
key = "file:key"

[live]
stt = "stub/hears"
chat = "stub/answers"
tts = "stub/speaks"

[agents.default]
instructions = "You are on a voice call."
voice = "marin"
"""

KEY = "sk-" + "v" * 32


@pytest.fixture(scope="module")
def vendor() -> Iterator[OpenAIStub]:
    stub = OpenAIStub()
    stub.key = KEY
    with stub.serve():
        yield stub


@pytest.fixture
def stub(vendor: OpenAIStub) -> OpenAIStub:
    vendor.journal.clear()
    return vendor


@pytest.fixture(scope="module")
def plugged(vendor: OpenAIStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose settings are an address and a key."""
    folder = tmp_path_factory.mktemp("plugged")
    (folder / "key").write_text(KEY + "\n")
    with Server(folder, config=VENDOR.format(url=vendor.base_url)) as running:
        yield running
    assert KEY not in running.log()


async def test_an_address_and_a_key_hold_a_whole_call(plugged: Server, stub: OpenAIStub):
    async with dial(plugged) as caller:
        await caller.microphone.say(clip(HOW_ARE_YOU))
        assert (await caller.wait_for(HEARD))["transcript"] == "what was said"
        done = (await caller.wait_for("response.done"))["response"]
        assert done["output"][0]["content"][0]["transcript"] == "Hello there, friend."
        assert done["usage"]["total_tokens"] == 16
        await caller.wait_for("output_audio_buffer.stopped")
        await until(lambda: len(caller.sound()) > 24_000, "the answer was heard")
        sound = caller.sound()
        caller.orders().finish()
    assert rms(sound) > 1000
    assert loudest_hz(sound, 48_000) == pytest.approx(440, abs=10)
    assert {record.headers["authorization"] for record in stub.journal} == {f"Bearer {KEY}"}
    (heard,) = stub.requests(TRANSCRIPTIONS)
    assert heard.wav is not None
    assert (heard.wav.framerate, heard.wav.nchannels, heard.wav.sampwidth) == (16_000, 1, 2)
    assert heard.samples is not None
    assert 1.8 < len(heard.samples) / 16_000 < 4
    assert rms(heard.samples) > 300
    (asked,) = stub.requests(CHAT)
    assert asked.body["messages"] == [
        {"role": "system", "content": "You are on a voice call."},
        {"role": "user", "content": "what was said"},
    ]
    assert {record.body["voice"] for record in stub.requests(SPEECH)} == {"marin"}
    assert " ".join(record.body["input"].strip() for record in stub.requests(SPEECH)) == "Hello there, friend."


async def test_a_picture_goes_to_a_model_that_sees(plugged: Server, stub: OpenAIStub):
    dot = "data:image/png;base64,iVBORw0KGgo="
    content = [{"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": dot}]
    item = {"type": "message", "role": "user", "content": content}
    async with dial(plugged) as caller:
        caller.send({"type": "conversation.item.create", "item": item})
        caller.send({"type": "response.create", "response": {"output_modalities": ["text"]}})
        await caller.wait_for("response.done")
    (asked,) = stub.requests(CHAT)
    assert asked.body["messages"][-1]["content"] == [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": dot}},
    ]


async def test_a_chat_vendor_that_fails_costs_one_answer(plugged: Server, stub: OpenAIStub):
    async with dial(plugged) as caller:
        stub.plan(CHAT, Plan(status=500, message="the model is on fire"))
        caller.ask("Hello?")
        done = await failed_response(caller)
        assert done["output"] == []
        assert await answer_to(caller, "Hello again?") == "Hello there, friend."

        stub.plan(CHAT, Plan(reset=True, after=4))
        caller.ask("And now?")
        done = await failed_response(caller)
        assert done["output"][0]["status"] == "incomplete"
        assert await answer_to(caller, "Once more?") == "Hello there, friend."
        caller.orders().finish()
        session = caller.session_id
    assert re.search(rf"WARNING .*{session} chat failed: stub/answers: .*the model is on fire", plugged.log())
    # Of the answer that broke off the model reads no more than could be heard.
    roles = [message["role"] for message in stub.requests(CHAT)[-1].body["messages"]]
    assert roles.count("user") == 4


async def test_a_voice_vendor_that_fails_costs_one_answer(plugged: Server, stub: OpenAIStub):
    async with dial(plugged) as caller:
        stub.plan(SPEECH, Plan(status=503))
        caller.ask("Hello?")
        await failed_response(caller)
        stub.plan(SPEECH, Plan(reset=True, after=2))
        caller.skip()
        caller.ask("Hello again?")
        await failed_response(caller)
        await until(lambda: "started" not in caller.orders().buffers.values(), "what there was is played")
        caller.skip()
        assert await answer_to(caller, "And now?") == "Hello there, friend."
        caller.orders().finish()


async def test_a_transcriber_that_fails_costs_one_turn(plugged: Server, stub: OpenAIStub):
    async with dial(plugged) as caller:
        stub.plan(TRANSCRIPTIONS, Plan(status=500))
        await caller.microphone.say(BRIEF)
        assert (await caller.wait_for(NOT_HEARD))["error"]["code"] == "bad_response"
        await an_error(caller)
        assert not caller.of("response.created")
        await caller.microphone.say(BRIEF)
        assert (await caller.wait_for(HEARD))["transcript"] == "what was said"
        await caller.wait_for("output_audio_buffer.stopped")
        caller.orders().finish()


async def test_a_wrong_key_is_said_to_the_caller_without_the_key(stub: OpenAIStub, tmp_path: Path):
    (tmp_path / "key").write_text("sk-wrong-" + "w" * 32)
    with Server(tmp_path, config=VENDOR.format(url=stub.base_url)) as server:
        async with dial(server) as caller:
            caller.ask("Hello?")
            done = await failed_response(caller)
        assert done["status_details"]["error"]["code"] == "auth_failed"
        assert "wwww" not in str(caller.events)
        assert "wwww" not in server.log()
        assert re.search("chat failed: .*refused the key", server.log())
