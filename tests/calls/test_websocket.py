"""Calls over a plain WebSocket: the core of OpenAI's Realtime API, every event held against its published types."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import orjson
import pytest
import websockets
from openai import AsyncOpenAI
from websockets.asyncio.client import ClientConnection

from media import g711
from media.resample import Resampler
from realtime.client import connect as webrtc
from realtime.client.talk import read_audio
from tests.calls.conftest import HOW_ARE_YOU, WEATHER
from tests.calls.server import API_KEY, Server
from tests.realtime.live.orders import OrderChecker

SECOND = np.zeros(24_000, np.int16)


class Socket:
    """One connection; everything received goes through the order checker."""

    def __init__(self, connection: ClientConnection, *, check: bool = True) -> None:
        self.connection = connection
        self.orders = OrderChecker()
        self.events: list[dict[str, Any]] = []
        self._check = check

    async def send(self, **event: Any) -> None:
        await self.connection.send(orjson.dumps(event).decode())

    async def receive(self) -> dict[str, Any]:
        event: dict[str, Any] = orjson.loads(await self.connection.recv())
        if self._check:
            self.orders.see(event)
        self.events.append(event)
        return event

    async def until(self, *types: str, timeout: float = 20.0) -> dict[str, Any]:
        async with asyncio.timeout(timeout):
            while (event := await self.receive())["type"] not in types:
                pass
        return event

    async def append(self, pcm: Any) -> None:
        for start in range(0, len(pcm), 24_000):
            data = base64.b64encode(pcm[start : start + 24_000].tobytes()).decode()
            await self.send(type="input_audio_buffer.append", audio=data)

    def audio(self) -> bytes:
        deltas = [event["delta"] for event in self.events if event["type"] == "response.output_audio.delta"]
        return b"".join(base64.b64decode(delta) for delta in deltas)

    def types(self) -> list[str]:
        return [event["type"] for event in self.events]


@asynccontextmanager
async def dial(server: Server, query: str = "", *, key: str = API_KEY, **options: Any) -> AsyncIterator[Socket]:
    url = server.url.replace("http", "ws") + "/v1/realtime" + query
    check = options.pop("check", True)
    headers = options.pop("headers", {"Authorization": f"Bearer {key}"})
    # Without a limit on the queue: with one, the other side's close is not seen behind sound that nobody has read.
    options = {"max_queue": None, **options}
    async with websockets.connect(url, additional_headers=headers, max_size=None, **options) as connection:
        yield Socket(connection, check=check)


async def say(socket: Socket, text: str, **response: Any) -> None:
    content = [{"type": "input_text", "text": text}]
    await socket.send(type="conversation.item.create", item={"type": "message", "role": "user", "content": content})
    await socket.send(type="response.create", **({"response": response} if response else {}))


async def test_session_created_comes_first_and_a_partial_update_is_merged(server: Server):
    async with dial(server, "?model=gpt-realtime") as socket:
        created = await socket.receive()
        assert created["type"] == "session.created"
        assert created["session"]["audio"]["input"]["turn_detection"]["silence_duration_ms"] == 500
        await socket.send(type="session.update", session={"type": "realtime", "instructions": "Be kind."})
        updated = (await socket.until("session.updated"))["session"]
        assert updated["instructions"] == "Be kind."
        assert updated["audio"] == created["session"]["audio"]


async def test_a_text_turn_is_answered_in_sound_and_words(server: Server):
    async with dial(server) as socket:
        await say(socket, "Tell me a joke.")
        done = await socket.until("response.done")
        socket.orders.finish()
    said = done["response"]["output"][0]["content"][0]["transcript"]
    spoken = "".join(e["delta"] for e in socket.events if e["type"] == "response.output_audio_transcript.delta")
    assert said == spoken
    assert len(socket.audio()) > 24_000
    assert not any(kind.startswith("output_audio_buffer") for kind in socket.types())


async def test_speech_is_understood_by_server_vad_even_when_it_comes_at_once(server: Server):
    async with dial(server) as socket:
        await socket.append(np.concatenate([SECOND, read_audio(WEATHER), SECOND]))
        heard = await socket.until("conversation.item.input_audio_transcription.completed")
        await socket.until("response.done")
        socket.orders.finish()
    assert heard["transcript"] == "what is the weather like in london tomorrow"


async def test_a_manual_turn_is_committed_and_answered_when_asked(server: Server):
    async with dial(server) as socket:
        detection = {"input": {"turn_detection": None}}
        await socket.send(type="session.update", session={"type": "realtime", "audio": detection})
        await socket.append(read_audio(HOW_ARE_YOU))
        await socket.send(type="input_audio_buffer.commit")
        await socket.send(type="response.create")
        heard = await socket.until("conversation.item.input_audio_transcription.completed")
        assert heard["transcript"].endswith("today")
        done = await socket.until("response.done")
        assert done["response"]["status"] == "completed"
        # The model was asked only when the words were there.
        assert "input_audio_buffer.speech_started" not in socket.types()
        await socket.send(type="input_audio_buffer.commit", event_id="ev_1")
        error = (await socket.until("error"))["error"]
        assert (error["code"], error["event_id"]) == ("input_audio_buffer_commit_empty", "ev_1")
        await socket.append(read_audio(HOW_ARE_YOU))
        await socket.send(type="input_audio_buffer.clear")
        await socket.until("input_audio_buffer.cleared")


async def test_a_turn_in_g711_both_ways(server: Server):
    down = Resampler(24_000, 8_000)
    async with dial(server) as socket:
        audio = {"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcma"}}}
        await socket.send(type="session.update", session={"type": "realtime", "audio": audio})
        data = g711.ulaw_encode(down.push(np.concatenate([SECOND, read_audio(WEATHER), SECOND])))
        await socket.send(type="input_audio_buffer.append", audio=base64.b64encode(data).decode())
        await socket.until("conversation.item.input_audio_transcription.completed")
        done = await socket.until("response.done")
        assert done["response"]["audio"]["output"]["format"]["type"] == "audio/pcma"
    pcm = g711.alaw_decode(socket.audio())
    assert len(pcm) > 4_000
    assert np.abs(pcm.astype(int)).max() > 1000


async def test_talking_over_the_answer_cancels_it_and_the_client_truncates(server: Server):
    async with dial(server) as socket:
        await say(socket, "Tell me a very long story.")
        await socket.until("response.output_audio.delta")
        await socket.until("response.done")
        item = socket.events[-1]["response"]["output"][0]
        await socket.send(type="conversation.item.truncate", item_id=item["id"], content_index=0, audio_end_ms=1500)
        assert (await socket.until("conversation.item.truncated"))["audio_end_ms"] == 1500
        await socket.send(type="conversation.item.retrieve", item_id=item["id"])
        kept = (await socket.until("conversation.item.retrieved"))["item"]["content"][0]["transcript"]
    assert kept
    assert item["content"][0]["transcript"].startswith(kept)
    assert 1 <= len(kept.split()) <= 8


async def test_out_of_band_responses_leave_the_conversation_alone(server: Server):
    async with dial(server) as socket:
        context = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Tell me a joke."}]}]
        response = {"conversation": "none", "output_modalities": ["text"], "input": context, "metadata": {"topic": "x"}}
        await socket.send(type="response.create", response=response)
        done = (await socket.until("response.done"))["response"]
    assert done["conversation_id"] is None
    assert done["metadata"] == {"topic": "x"}
    assert done["output"][0]["content"][0]["text"]
    assert "conversation.item.added" not in socket.types()


async def test_sound_in_an_item_is_understood_before_the_answer(server: Server):
    sound = base64.b64encode(read_audio(HOW_ARE_YOU).tobytes()).decode()
    item = {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": sound}]}
    async with dial(server) as socket:
        await socket.send(type="conversation.item.create", item=item)
        await socket.send(type="response.create")
        await socket.until("response.done")
    completed = next(e for e in socket.events if e["type"].endswith("input_audio_transcription.completed"))
    assert completed["transcript"].endswith("today")
    assert socket.types().index(completed["type"]) < socket.types().index("response.output_item.added")


async def test_a_transcription_session_only_listens(server: Server):
    async with dial(server, "?intent=transcription") as socket:
        created = await socket.receive()
        assert created["session"]["type"] == "transcription"
        await socket.append(np.concatenate([SECOND, read_audio(HOW_ARE_YOU), SECOND]))
        heard = await socket.until("conversation.item.input_audio_transcription.completed")
        assert heard["transcript"].endswith("today")
        await socket.send(type="response.create", event_id="ev_1")
        assert (await socket.until("error"))["error"]["event_id"] == "ev_1"
        assert "response.created" not in socket.types()


async def test_a_secret_opens_calls_until_it_expires_and_brings_its_session(server: Server):
    wish = {"expires_after": {"anchor": "created_at", "seconds": 60}, "session": {"type": "realtime"}}
    wish["session"]["instructions"] = "Count."
    status, _, body = await server.request("POST", "/v1/realtime/client_secrets", orjson.dumps(wish))
    assert status == 200, body
    secret = orjson.loads(body)
    assert secret["value"].startswith("ek_")
    assert secret["session"]["object"] == "realtime.session"
    assert secret["session"]["instructions"] == "Count."
    protocols = ["realtime", f"openai-insecure-api-key.{secret['value']}"]
    for _ in range(2):
        async with dial(server, headers={}, subprotocols=protocols) as socket:
            assert socket.connection.subprotocol == "realtime"
            assert (await socket.receive())["session"]["instructions"] == "Count."
    async with webrtc(server.url, token=secret["value"]) as call:
        assert (await call.wait_for("session.created"))["session"]["instructions"] == "Count."


async def test_the_betas_routes_give_secrets_for_its_flat_session(server: Server):
    async with AsyncOpenAI(base_url=server.url + "/v1", api_key=API_KEY, max_retries=0) as client:
        made = await client.beta.realtime.sessions.create(instructions="Count.", input_audio_format="g711_ulaw")
        assert (made.instructions, made.input_audio_format) == ("Count.", "g711_ulaw")
        listening = await client.beta.realtime.transcription_sessions.create(input_audio_format="pcm16")
    async with dial(server, key=made.client_secret.value) as socket:
        assert (await socket.receive())["session"]["instructions"] == "Count."
    async with dial(server, key=listening.client_secret.value) as socket:
        assert (await socket.receive())["session"]["type"] == "transcription"


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer nonsense"}, {"Authorization": "Basic x"}])
async def test_a_bad_key_is_refused_before_the_upgrade(server: Server, headers):
    with pytest.raises(websockets.InvalidStatus) as refusal:
        async with dial(server, headers=headers):
            pass
    assert refusal.value.response.status_code == 401
    assert orjson.loads(refusal.value.response.body)["error"]["code"]


async def test_an_unknown_call_has_no_sideband(server: Server):
    with pytest.raises(websockets.InvalidStatus) as refusal:
        async with dial(server, "?call_id=rtc_nothing"):
            pass
    assert refusal.value.response.status_code == 404


async def test_a_sideband_sees_and_controls_a_webrtc_call(server: Server):
    async with webrtc(server.url, api_key=API_KEY) as call:
        created = await call.wait_for("session.created")
        number = created["session"]["id"].replace("sess_", "rtc_")
        async with dial(server, f"?call_id={number}", check=False) as side:
            assert (await side.receive())["session"]["id"] == created["session"]["id"]
            await side.send(type="session.update", session={"type": "realtime", "instructions": "From the side."})
            assert (await call.wait_for("session.updated"))["session"]["instructions"] == "From the side."
            await call.say("Tell me a joke.")
            await side.until("output_audio_buffer.started")
            await side.send(type="output_audio_buffer.clear")
            await call.wait_for("output_audio_buffer.cleared")
            status, _, _ = await server.request("POST", f"/v1/realtime/calls/{number}/hangup")
            assert status == 200
            async with asyncio.timeout(5):
                await call.ended()
                await side.connection.wait_closed()
        assert side.connection.close_code == 1000


async def test_the_betas_names_and_flat_session(server: Server):
    headers = {"Authorization": f"Bearer {API_KEY}", "OpenAI-Beta": "realtime=v1"}
    async with dial(server, headers=headers, check=False) as socket:
        created = (await socket.receive())["session"]
        assert created["modalities"] == ["audio", "text"]
        assert created["input_audio_format"] == "pcm16"
        flat = {"modalities": ["text", "audio"], "voice": "echo", "input_audio_format": "g711_ulaw", "temperature": 0.7}
        await socket.send(type="session.update", session=flat)
        updated = (await socket.until("session.updated"))["session"]
        assert (updated["voice"], updated["input_audio_format"]) == ("echo", "g711_ulaw")
        await say(socket, "Tell me a joke.", modalities=["text", "audio"])
        done = (await socket.until("response.done"))["response"]
    assert done["output"][0]["content"][0]["type"] == "audio"
    assert "response.audio.delta" in socket.types()
    assert "conversation.item.created" in socket.types()
    assert not {"response.output_audio.delta", "conversation.item.added", "conversation.item.done"} & set(
        socket.types()
    )


async def test_a_picture_for_a_model_that_does_not_see_is_refused_by_name(server: Server):
    content = [{"type": "input_text", "text": "Look!"}, {"type": "input_image", "image_url": "data:image/png;base64,"}]
    item = {"type": "message", "role": "user", "content": content}
    async with dial(server) as socket:
        await socket.send(type="conversation.item.create", item=item, event_id="ev_1")
        error = (await socket.until("error"))["error"]
        assert (error["param"], error["event_id"]) == ("item.content[1]", "ev_1")
        beside = {"conversation": "none", "input": [item]}
        await socket.send(type="response.create", response=beside, event_id="ev_2")
        error = (await socket.until("error"))["error"]
        assert (error["param"], error["event_id"]) == ("response.input[0].content[1]", "ev_2")


async def test_nonsense_is_an_error_and_the_call_goes_on(server: Server):
    async with dial(server) as socket:
        await socket.receive()
        for message, code in [("no json", "invalid_json"), ("[]", "invalid_json"), ('{"type":"x"}', "unknown_event")]:
            await socket.connection.send(message)
            assert (await socket.until("error"))["error"]["code"] == code
        await socket.connection.send(b"bytes")
        assert (await socket.until("error"))["error"]["code"] == "not_text"
        await socket.send(type="input_audio_buffer.append", audio="%%%", event_id="ev_1")
        error = (await socket.until("error"))["error"]
        assert (error["param"], error["event_id"]) == ("audio", "ev_1")
        await say(socket, "Tell me a joke.")
        assert (await socket.until("response.done"))["response"]["status"] == "completed"


async def test_audio_comes_by_the_megabyte_within_bounds(server: Server):
    async with dial(server) as socket:
        most = base64.b64encode(bytes(15 << 20)).decode()
        await socket.send(type="input_audio_buffer.append", audio=most, event_id="ev_1")
        await socket.send(type="input_audio_buffer.append", audio=most + "AAAA", event_id="ev_2")
        error = (await socket.until("error"))["error"]
        assert (error["param"], error["event_id"]) == ("audio", "ev_2")
        for audio in ("AA==" + most[:80_000], most[:70_000] + "%%%%"):  # broken before and behind the first piece
            await socket.send(type="input_audio_buffer.append", audio=audio, event_id="ev_3")
            assert (await socket.until("error"))["error"]["event_id"] == "ev_3"
        await socket.send(type="input_audio_buffer.append", audio=most, event_id="ev_4")
        await socket.send(type="input_audio_buffer.append", audio=most, event_id="ev_5")
        error = (await socket.until("error"))["error"]
        assert (error["code"], error["event_id"]) == ("audio_too_far_ahead", "ev_5")


async def test_eight_calls_at_once_do_not_leak_into_each_other(server: Server):
    async def one(number: int) -> str:
        async with dial(server) as socket:
            await say(socket, f"Repeat after me: number {number}.", output_modalities=["text"])
            done = await socket.until("response.done")
            return done["response"]["output"][0]["content"][0]["text"]

    texts = await asyncio.gather(*(one(number) for number in range(8)))
    for number, text in enumerate(texts):
        assert f"number {number}" in text.lower()


async def test_a_client_that_does_not_read_is_hung_up_on(instant: Server):
    async with dial(instant, check=False, max_queue=1, close_timeout=0.1) as socket:
        for _ in range(400):
            await socket.send(type="response.create")
            await asyncio.sleep(0.005)
        async with asyncio.timeout(30):
            while (await instant.get("/v1/ai/realtime/sessions"))["data"]:
                await socket.send(type="response.create")
                await asyncio.sleep(0.02)
