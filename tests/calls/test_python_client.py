"""Real calls through the Python client: speech in, words and speech out, on the embedded engines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from realtime.client import ApiError, CallEnded, ConnectError, LiveCall, connect
from realtime.client.talk import read_audio
from tests.calls.conftest import HOW_ARE_YOU, WEATHER
from tests.calls.server import API_KEY, Server

pytest.importorskip("pocketsphinx", reason="exact words need the extra `local`")


@pytest.fixture(params=["webrtc", "websocket"])
def transport(request: pytest.FixtureRequest) -> str:
    return request.param


@asynccontextmanager
async def call_to(server: Server, transport: str = "webrtc", **options: Any) -> AsyncIterator[LiveCall]:
    async with connect(server.url, api_key=API_KEY, transport=transport, **options) as call:
        yield call


async def speak(call: LiveCall, path: Path) -> None:
    call.send_audio(read_audio(path))
    await call.audio_sent()


async def test_a_question_is_understood_and_answered_aloud(server: Server, transport: str):
    async with call_to(server, transport) as call:
        await call.wait_for("session.created")
        await speak(call, WEATHER)
        heard = await call.wait_for("conversation.item.input_audio_transcription.completed")
        assert heard["transcript"] == "what is the weather like in london tomorrow"
        done = await call.wait_for("response.done")
        said = done["response"]["output"][0]["content"][0]["transcript"]
        await call.wait_for("output_audio_buffer.stopped")
        pieces = []
        async with asyncio.timeout(10):
            async for pcm, _ in call.audio():
                pieces.append(pcm)
                if sum(map(len, pieces)) > 16_000:
                    break
    assert said.strip()
    assert np.abs(np.concatenate(pieces).astype(float)).max() > 1000


async def test_talking_over_a_long_story_cuts_it_and_history_keeps_what_was_heard(server: Server, transport: str):
    async with call_to(server, transport) as call:
        await call.say("Please tell me a very long story.")
        await call.wait_for("output_audio_buffer.started")
        await asyncio.sleep(1.5)
        speaking = asyncio.create_task(speak(call, HOW_ARE_YOU))
        started = await call.wait_for("input_audio_buffer.speech_started")
        cleared = await call.wait_for("output_audio_buffer.cleared")
        assert cleared["received_at"] - started["received_at"] < 1.0
        truncated = await call.wait_for("conversation.item.truncated")
        await call.send({"type": "conversation.item.retrieve", "item_id": truncated["item_id"]})
        item = (await call.wait_for("conversation.item.retrieved"))["item"]
        await speaking
        heard = await call.wait_for("conversation.item.input_audio_transcription.completed")
        assert heard["transcript"].endswith("today")
        await call.wait_for("output_audio_buffer.started")
        assert call.stats().get("texts_refused", 0) == 0, "hundreds of events come at once"
        session = call.session_id
        transcript = (await server.get(f"/v1/ai/realtime/sessions/{session}/transcript"))["transcript"]
    story = item["content"][0]["transcript"]
    assert 1000 <= truncated["audio_end_ms"] <= 4000
    # Between one and five words a second were heard of a story of well over a hundred words.
    assert 1 <= len(story.split()) <= 20
    assert transcript[1]["text"] == story
    assert [entry["role"] for entry in transcript] == ["user", "assistant", "user", "assistant"]


async def test_two_calls_at_once_do_not_mix(server: Server):
    async def ask(path: Path) -> str:
        async with call_to(server) as call:
            await speak(call, path)
            heard = await call.wait_for("conversation.item.input_audio_transcription.completed")
            return heard["transcript"]

    words = await asyncio.gather(ask(WEATHER), ask(HOW_ARE_YOU))
    assert words[0] == "what is the weather like in london tomorrow"
    assert words[1].endswith("today")


async def test_a_tool_round_trip(server: Server):
    tool = {
        "type": "function",
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    }
    async with call_to(server, session={"type": "realtime", "tools": [tool]}) as call:
        await call.say("What is the weather in London?")
        done = await call.wait_for("response.function_call_arguments.done")
        assert done["name"] == "get_weather"
        await call.wait_for("response.done")
        output = {"type": "function_call_output", "call_id": done["call_id"], "output": "rain all day"}
        await call.send({"type": "conversation.item.create", "item": output})
        await call.send({"type": "response.create"})
        said = await call.wait_for("response.output_audio_transcript.done")
    assert "rain" in said["transcript"]


async def test_a_session_can_be_listed_and_ended_over_http(server: Server):
    async with call_to(server) as call:
        await call.wait_for("session.created")
        listed = await server.get("/v1/ai/realtime/sessions")
        assert [entry["session_id"] for entry in listed["data"]] == [call.session_id]
        status, _, _ = await server.request("DELETE", f"/v1/ai/realtime/sessions/{call.session_id}")
        assert status == 204
        async with asyncio.timeout(5):
            assert await call.ended() == "remote_closed"
        with pytest.raises(CallEnded):
            await call.say("too late")
    assert (await server.get("/v1/ai/realtime/sessions"))["data"] == []


async def test_a_wrong_key_is_refused(server: Server):
    with pytest.raises(ApiError) as refusal:
        async with connect(server.url, api_key="ifr_pk_proj_" + "x" * 32):
            pass
    assert (refusal.value.status, refusal.value.code) == (401, "invalid_api_key")
    assert refusal.value.request_id


async def test_a_token_opens_one_call(server: Server):
    token = str((await server.token())["token"])
    async with connect(server.url, token=token):
        with pytest.raises(ApiError) as refusal:
            async with connect(server.url, token=token):
                pass
    assert (refusal.value.status, refusal.value.code) == (401, "token_used")


async def test_a_server_that_is_not_there_is_said_so():
    with pytest.raises(ConnectError, match="cannot be reached"):
        async with connect("http://127.0.0.1:9", api_key="x"):
            pass
