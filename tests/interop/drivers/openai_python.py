"""`openai` for Python, as its users write it. Run inside its own environment: `openai_python.py SCENARIO`."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai

SOUNDS = Path(os.environ["SOUNDS"])
RATE = 24_000
WEATHER = "what is the weather like in london tomorrow"
TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def _client(key: str = os.environ["API_KEY"]) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=os.environ["BASE_URL"], api_key=key, max_retries=0)


class _Call:
    """A connection of the SDK's; every event it brings is recorded as it came."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.events: list[Any] = []
        self._record = open(os.environ["RECORD"], "ab")  # noqa: SIM115 - as long as the process

    async def next(self) -> Any:
        raw = await self.connection.recv_bytes()
        self._record.write(raw.strip() + b"\n")
        self._record.flush()
        event = self.connection.parse_event(raw)
        self.events.append(event)
        return event

    async def until(self, *types: str, seconds: float = 20.0) -> Any:
        async with asyncio.timeout(seconds):
            while (event := await self.next()).type not in types:
                assert event.type != "error" or "error" in types, event
        return event

    async def update(self, **session: Any) -> Any:
        await self.connection.session.update(session={"type": "realtime", **session})
        return (await self.until("session.updated")).session

    async def ask(self, text: str, **response: Any) -> None:
        await self.connection.conversation.item.create(item=_said(text))
        await self.connection.response.create(**({"response": response} if response else {}))

    async def append(self, data: bytes) -> None:
        await self.connection.input_audio_buffer.append(audio=base64.b64encode(data).decode())

    async def answer(self) -> Any:
        return (await self.until("response.done")).response

    def types(self) -> list[str]:
        return [event.type for event in self.events]

    def audio(self) -> bytes:
        deltas = [event.delta for event in self.events if event.type == "response.output_audio.delta"]
        return b"".join(base64.b64decode(delta) for delta in deltas)

    def only(self, kind: str) -> Any:
        found = [event for event in self.events if event.type == kind]
        assert len(found) == 1, self.types()
        return found[0]


@asynccontextmanager
async def _call(**options: Any) -> AsyncIterator[_Call]:
    options.setdefault("model", "gpt-realtime")
    async with _client().realtime.connect(**options) as connection:
        call = _Call(connection)
        first = await call.next()
        assert first.type == "session.created", first
        yield call


def _said(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def _sound(name: str) -> bytes:
    return (SOUNDS / name).read_bytes()


async def mint() -> None:
    secret = await _client().realtime.client_secrets.create(
        expires_after={"anchor": "created_at", "seconds": 120},
        session={"type": "realtime", "model": "gpt-realtime", "instructions": "Be brief."},
    )
    assert secret.value.startswith("ek_")
    assert 100 < secret.expires_at - time.time() < 121
    assert secret.session.type == "realtime"
    assert secret.session.object == "realtime.session"
    assert secret.session.id.startswith("sess_")
    assert secret.session.instructions == "Be brief."
    for _ in range(2):
        async with _client(secret.value).realtime.connect(model="gpt-realtime") as connection:
            call = _Call(connection)
            assert (await call.next()).session.instructions == "Be brief."
            await call.ask("Tell me a joke.")
            assert (await call.answer()).status == "completed"


async def wrong_key() -> None:
    client = _client("ek_nonsense")
    try:
        await client.realtime.client_secrets.create()
    except openai.AuthenticationError as error:
        assert error.status_code == 401
        assert error.body["message"]
        assert error.code, error.body
    else:
        raise AssertionError("a wrong key minted")
    try:
        async with client.realtime.connect(model="gpt-realtime"):
            raise AssertionError("a wrong key connected")
    except Exception as error:
        assert "401" in str(error), repr(error)


async def defaults() -> None:
    async with _call() as call:
        session = call.events[0].session
        assert session.output_modalities == ["audio"]
        assert session.max_output_tokens == "inf"
        assert session.tool_choice == "auto"
        turn = session.audio.input.turn_detection
        assert (turn.type, turn.threshold, turn.prefix_padding_ms, turn.silence_duration_ms) == (
            "server_vad",
            0.5,
            300,
            500,
        )
        assert turn.create_response
        assert turn.interrupt_response
        assert (session.audio.input.format.type, session.audio.input.format.rate) == ("audio/pcm", RATE)
        assert session.audio.output.voice


async def partial_update() -> None:
    async with _call() as call:
        before = call.events[0].session
        after = await call.update(
            instructions="Be kind.", audio={"input": {"turn_detection": {"type": "server_vad", "threshold": 0.7}}}
        )
        assert after.instructions == "Be kind."
        assert after.audio.input.turn_detection.threshold == 0.7
        assert after.audio.input.turn_detection.silence_duration_ms == 500
        assert after.audio.output == before.audio.output
        after = await call.update(
            audio={"input": {"turn_detection": None, "noise_reduction": {"type": "near_field"}}}, tracing="auto"
        )
        assert after.audio.input.turn_detection is None
        assert after.audio.input.noise_reduction.type == "near_field"
        assert after.tracing == "auto"
        assert after.instructions == "Be kind."
        after = await call.update(instructions="", audio={"input": {"noise_reduction": None}}, tracing=None)
        assert (after.instructions, after.audio.input.noise_reduction, after.tracing) == ("", None, None)


async def malformed_and_unknown_events() -> None:
    async with _call() as call:
        for text, code in [("{", "invalid_json"), ('{"type":"no.such","event_id":"ev_1"}', "unknown_event")]:
            await call.connection.send_raw(text)
            error = (await call.until("error")).error
            assert error.code == code, error
        assert error.event_id == "ev_1"
        await call.connection.send(
            {"type": "session.update", "event_id": "ev_2", "session": {"type": "realtime", "max_output_tokens": "many"}}
        )
        error = (await call.until("error")).error
        assert (error.param, error.event_id) == ("session.max_output_tokens", "ev_2"), error
        await call.ask("Tell me a joke.")
        assert (await call.answer()).status == "completed"


async def text_turn() -> None:
    async with _call() as call:
        await call.update(output_modalities=["text"])
        await call.ask("Tell me a joke.")
        response = await call.answer()
        text = call.only("response.output_text.done").text
        assert text == response.output[0].content[0].text
        assert text == "".join(e.delta for e in call.events if e.type == "response.output_text.delta")
        assert response.usage.total_tokens == response.usage.input_tokens + response.usage.output_tokens
        assert "response.output_audio.delta" not in call.types()


async def audio_turn() -> None:
    """A recording as an item of its own, answered aloud."""
    content = [{"type": "input_audio", "audio": base64.b64encode(_sound("weather.pcm")[2 * RATE : -2 * RATE]).decode()}]
    async with _call() as call:
        await call.connection.conversation.item.create(item={"type": "message", "role": "user", "content": content})
        await call.connection.response.create()
        response = await call.answer()
        assert call.only("conversation.item.input_audio_transcription.completed").transcript == WEATHER
        assert response.output[0].content[0].transcript
        assert len(call.audio()) > RATE
        assert len(call.audio()) % 2 == 0


async def vad_turn() -> None:
    """Speech as it is spoken, in pieces of 20 ms."""
    async with _call() as call:
        data = _sound("weather.pcm")

        async def speak() -> None:
            for at in range(0, len(data), 960):
                await call.append(data[at : at + 960])
                await asyncio.sleep(0.005)

        speaking = asyncio.create_task(speak())
        response = await call.answer()
        await speaking
        assert response.status == "completed"
        order = [
            "input_audio_buffer.speech_started",
            "input_audio_buffer.speech_stopped",
            "input_audio_buffer.committed",
            "conversation.item.added",
            "conversation.item.done",
            "conversation.item.input_audio_transcription.completed",
            "response.created",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_audio.delta",
            "response.output_audio.done",
            "response.done",
        ]
        places = [call.types().index(kind) for kind in order]
        assert places == sorted(places), call.types()
        started, stopped = call.only(order[0]), call.only(order[1])
        assert 500 <= started.audio_start_ms <= 1300, started
        assert 3800 <= stopped.audio_end_ms <= 5000, stopped
        items = {event.item_id for event in call.events if event.type.startswith("input_audio_buffer.")}
        assert len(items) == 1
        assert call.only(order[5]).transcript == WEATHER


async def manual_turn() -> None:
    async with _call() as call:
        await call.update(audio={"input": {"turn_detection": None}})
        await call.append(_sound("how_are_you.pcm")[2 * RATE : -2 * RATE])
        await call.connection.input_audio_buffer.commit()
        await call.connection.response.create()
        await call.answer()
        assert (
            call.only("conversation.item.input_audio_transcription.completed").transcript == "hello how are you today"
        )
        assert "input_audio_buffer.speech_started" not in call.types()
        await call.connection.input_audio_buffer.commit(event_id="ev_1")
        assert (await call.until("error")).error.event_id == "ev_1"
        await call.append(_sound("how_are_you.pcm"))
        await call.connection.input_audio_buffer.clear()
        await call.until("input_audio_buffer.cleared")


async def g711_turn() -> None:
    async with _call() as call:
        session = await call.update(
            audio={"input": {"format": {"type": "audio/pcmu"}}, "output": {"format": {"type": "audio/pcmu"}}}
        )
        assert session.audio.output.format.type == "audio/pcmu"
        await call.append(_sound("weather.ulaw"))
        response = await call.answer()
        # The embedded recogniser understands half of what comes over a telephone.
        assert "tomorrow" in call.only("conversation.item.input_audio_transcription.completed").transcript
        assert response.audio.output.format.type == "audio/pcmu", response.audio
        # µ-law: one byte a sample at 8 kHz, silence is 0xff or 0x7f.
        assert len(call.audio()) > 8000
        assert len(set(call.audio())) > 50


async def barge_in_with_truncation() -> None:
    """The program plays in real time, stops when the caller speaks, and says how much was heard."""
    async with _call() as call:
        await call.ask("Tell me a very long story.")
        first = await call.until("response.output_audio.delta")
        begun = time.monotonic()
        assert (await call.answer()).status == "completed"
        await asyncio.sleep(max(0.0, begun + 2.0 - time.monotonic()))
        await call.append(_sound("how_are_you.pcm"))
        await call.until("input_audio_buffer.speech_started")
        played = round((time.monotonic() - begun) * 1000)
        await call.connection.conversation.item.truncate(item_id=first.item_id, content_index=0, audio_end_ms=played)
        assert (await call.until("conversation.item.truncated")).audio_end_ms == played
        await call.connection.conversation.item.retrieve(item_id=first.item_id)
        kept = (await call.until("conversation.item.retrieved")).item.content[0].transcript
        assert kept
        assert call.only("response.output_audio_transcript.done").transcript.startswith(kept)
        assert len(kept.split()) < 30, kept
        assert (await call.answer()).status == "completed"


async def barge_in_while_the_answer_is_made() -> None:
    async with _call() as call:
        await call.append(_sound("how_are_you.pcm")[: RATE * 2 * 3 // 4])  # the silence before the words
        await call.ask("Tell me a very long story.")
        first = await call.until("response.output_audio.delta")
        await call.append(_sound("how_are_you.pcm"))
        done = await call.answer()
        assert (done.status, done.status_details.reason) == ("cancelled", "turn_detected"), done
        assert done.output[0].status == "incomplete"
        # The client throws its queue away and truncates only if the speech came before the closing events.
        assert call.types().index("input_audio_buffer.speech_started") < call.types().index(
            "response.output_audio.done"
        )
        await call.connection.conversation.item.truncate(item_id=first.item_id, content_index=0, audio_end_ms=700)
        await call.until("conversation.item.truncated")
        answer = await call.answer()
        assert answer.status == "completed"
        after = call.types()[call.types().index("response.done") :]
        assert "response.output_audio.delta" in after
        late = [e for e in call.events if e.type == "response.output_audio.delta" and e.item_id == first.item_id]
        assert call.events.index(late[-1]) < call.types().index("response.done")


async def interrupt_response_false() -> None:
    async with _call() as call:
        await call.update(
            audio={
                "input": {
                    "turn_detection": {"type": "server_vad", "interrupt_response": False, "create_response": False}
                }
            }
        )
        await call.ask("Count to ten.")
        await call.until("response.output_audio.delta")
        await call.append(_sound("how_are_you.pcm"))
        assert (await call.answer()).status == "completed"
        if "conversation.item.input_audio_transcription.completed" not in call.types():
            await call.until("conversation.item.input_audio_transcription.completed")
        assert call.types().count("response.created") == 1


async def cancel() -> None:
    async with _call() as call:
        await call.ask("Tell me a very long story.")
        await call.until("response.output_audio.delta")
        await call.connection.response.cancel()
        done = await call.answer()
        assert (done.status, done.status_details.reason) == ("cancelled", "client_cancelled")
        assert done.output[0].status == "incomplete"
        await call.connection.response.cancel(event_id="ev_1")
        assert (await call.until("error")).error.event_id == "ev_1"
        await call.ask("Tell me a joke.")
        assert (await call.answer()).status == "completed"


async def tool_round_trip() -> None:
    async with _call() as call:
        await call.update(tools=[TOOL])
        await call.ask("What is the weather in London?")
        asked = await call.answer()
        assert [item.type for item in asked.output] == ["function_call"]
        wanted = asked.output[0]
        assert (wanted.name, wanted.status) == ("get_weather", "completed")
        arguments = call.only("response.function_call_arguments.done")
        assert json.loads(arguments.arguments)["city"]
        assert arguments.arguments == wanted.arguments
        assert call.only("response.output_item.added").item.status == "in_progress"
        await call.connection.conversation.item.create(
            item={
                "type": "function_call_output",
                "call_id": wanted.call_id,
                "output": json.dumps({"sky": "purple rain"}),
            }
        )
        await call.connection.response.create()
        answer = await call.answer()
        assert "purple rain" in answer.output[0].content[0].transcript
        assert call.types().count("response.function_call_arguments.done") == 1


async def item_editing() -> None:
    async with _call() as call:
        items = call.connection.conversation.item
        await items.create(item=_said("second") | {"id": "item_2"})
        assert (await call.until("conversation.item.done")).item.id == "item_2"
        await items.create(item=_said("first") | {"id": "item_1"}, previous_item_id="root")
        assert (await call.until("conversation.item.added")).previous_item_id is None
        await items.create(item=_said("between") | {"id": "item_3"}, previous_item_id="item_1")
        await call.until("conversation.item.added")
        assert (await call.until("conversation.item.done")).previous_item_id == "item_1"
        await items.create(item=_said("lost"), previous_item_id="item_9", event_id="ev_1")
        error = (await call.until("error")).error
        assert (error.param, error.event_id) == ("previous_item_id", "ev_1")
        await items.retrieve(item_id="item_3")
        assert (await call.until("conversation.item.retrieved")).item.content[0].text == "between"
        await items.delete(item_id="item_3")
        assert (await call.until("conversation.item.deleted")).item_id == "item_3"
        await items.retrieve(item_id="item_3", event_id="ev_2")
        assert (await call.until("error")).error.event_id == "ev_2"


async def out_of_band() -> None:
    async with _call() as call:
        await call.connection.response.create(
            response={
                "conversation": "none",
                "output_modalities": ["text"],
                "metadata": {"topic": "side"},
                "input": [_said("Tell me a joke.")],
            }
        )
        response = await call.answer()
        assert (response.conversation_id, response.metadata) == (None, {"topic": "side"})
        assert response.output[0].content[0].text
        assert "conversation.item.added" not in call.types()


async def semantic_vad_turn() -> None:
    async with _call() as call:
        session = await call.update(audio={"input": {"turn_detection": {"type": "semantic_vad", "eagerness": "high"}}})
        turn = session.audio.input.turn_detection
        assert (turn.type, turn.eagerness, turn.create_response, turn.interrupt_response) == (
            "semantic_vad",
            "high",
            True,
            True,
        )
        await call.append(_sound("how_are_you.pcm"))
        assert (await call.answer()).status == "completed"


async def transcription_session() -> None:
    secret = await _client().realtime.client_secrets.create(
        session={
            "type": "transcription",
            "audio": {"input": {"transcription": {"model": "gpt-4o-transcribe", "language": "en"}}},
        }
    )
    async with _client(secret.value).realtime.connect(extra_query={"intent": "transcription"}) as connection:
        call = _Call(connection)
        assert (await call.next()).session.type == "transcription"
        await call.append(_sound("how_are_you.pcm"))
        heard = await call.until("conversation.item.input_audio_transcription.completed")
        assert heard.transcript == "hello how are you today"
        assert "response.created" not in call.types()


async def idle_timeout() -> None:
    async with _call() as call:
        await call.update(audio={"input": {"turn_detection": {"type": "server_vad", "idle_timeout_ms": 5000}}})
        await call.ask("Repeat after me: hm.")
        await call.answer()
        await call.until("input_audio_buffer.timeout_triggered")
        assert (await call.answer()).status == "completed"


async def images_and_long_instructions_are_taken() -> None:
    picture = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()
    async with _call() as call:
        await call.update(instructions="Be kind. " * 5000)
        content = [{"type": "input_text", "text": "Tell me a joke."}, {"type": "input_image", "image_url": picture}]
        item = {"type": "message", "role": "user", "content": content}
        await call.connection.conversation.item.create(item=item)
        assert (await call.until("conversation.item.done")).item.content[1].image_url == picture


async def what_cannot_be_is_refused_by_name() -> None:
    refused = {
        "session.prompt": {"prompt": {"id": "pmpt_1"}},
        "session.tools[0].type": {"tools": [{"type": "mcp", "server_label": "x", "server_url": "https://x.test"}]},
        "session.audio.output.speed": {"audio": {"output": {"speed": 9}}},
        "session.audio.input.format.rate": {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}},
        "session.output_modalities": {"output_modalities": ["audio", "text"]},
    }
    async with _call() as call:
        for param, session in refused.items():
            await call.connection.session.update(session={"type": "realtime", **session}, event_id=f"ev_{param}")
            error = (await call.until("error")).error
            assert (error.param, error.event_id) == (param, f"ev_{param}"), error


async def the_betas_client() -> None:
    """It never validated; what counts is that it hears the answer by the old names."""
    client = openai.AsyncOpenAI(
        api_key=os.environ["API_KEY"], websocket_base_url=os.environ["BASE_URL"].replace("http", "ws")
    )
    async with client.beta.realtime.connect(model="gpt-4o-realtime-preview") as connection:
        seen: list[Any] = []

        async def until(kind: str) -> Any:
            async with asyncio.timeout(20):
                while (event := await connection.recv()).type != kind:
                    assert event.type != "error", event
                    seen.append(event)
            return event

        assert (await until("session.created")).session.input_audio_format == "pcm16"
        turn = {"type": "server_vad", "silence_duration_ms": 400}
        await connection.session.update(
            session={"modalities": ["audio", "text"], "voice": "ash", "turn_detection": turn}
        )
        session = (await until("session.updated")).session
        assert (session.voice, session.turn_detection.silence_duration_ms) == ("ash", 400)
        await connection.input_audio_buffer.append(audio=base64.b64encode(_sound("how_are_you.pcm")).decode())
        heard = await until("conversation.item.input_audio_transcription.completed")
        assert heard.transcript == "hello how are you today"
        done = await until("response.done")
        assert done.response.output[0].content[0].type == "audio"
        assert any(event.type == "response.audio.delta" for event in seen)


async def eight_calls_at_once() -> None:
    async def one(number: int) -> str:
        async with _call() as call:
            await call.ask(f"Repeat after me: the number {number}.", output_modalities=["text"])
            return (await call.answer()).output[0].content[0].text

    texts = await asyncio.gather(*(one(number) for number in range(8)))
    for number, text in enumerate(texts):
        assert f"number {number}" in text, texts


async def webrtc_call_with_sideband_and_hang_up() -> None:
    import aioice.ice
    from aiortc import RTCPeerConnection, RTCSessionDescription
    from aiortc.mediastreams import AudioStreamTrack

    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
    peer = RTCPeerConnection()
    peer.addTrack(AudioStreamTrack())
    channel = peer.createDataChannel("oai-events")
    heard: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    record = open(os.environ["RECORD"], "a")  # noqa: SIM115

    @channel.on("message")
    def _(message: str) -> None:
        record.write(message + "\n")
        record.flush()
        heard.put_nowait(json.loads(message))

    async def until(kind: str) -> dict[str, Any]:
        async with asyncio.timeout(20):
            while (event := await heard.get())["type"] != kind:
                assert event["type"] != "response.output_audio.delta"
        return event

    await peer.setLocalDescription(await peer.createOffer())
    client = _client()
    answer = await client.realtime.calls.create(
        sdp=peer.localDescription.sdp,
        session={"type": "realtime", "model": "gpt-realtime", "instructions": "From the call."},
    )
    assert answer.response.status_code == 201
    location = answer.response.headers["location"]
    number = location.split("/")[-1]
    assert location.startswith("/v1/realtime/calls/rtc_"), location
    await peer.setRemoteDescription(RTCSessionDescription(sdp=answer.text, type="answer"))
    created = await until("session.created")
    assert created["session"]["instructions"] == "From the call."
    async with _call(call_id=number) as side:
        assert side.events[0].session.id == created["session"]["id"]
        session = await side.update(instructions="From the side.")
        assert session.instructions == "From the side."
        assert (await until("session.updated"))["session"]["instructions"] == "From the side."
        await side.ask("Tell me a very long story.")
        started = await until("output_audio_buffer.started")
        await side.until("output_audio_buffer.started")
        await side.connection.output_audio_buffer.clear()
        assert (await until("output_audio_buffer.cleared"))["response_id"] == started["response_id"]
        await client.realtime.calls.hangup(number)
        async with asyncio.timeout(10):
            while peer.connectionState not in ("closed", "failed"):
                await asyncio.sleep(0.05)
        try:
            while True:
                await side.next()
        except Exception as error:
            assert "1000" in str(error) or "ConnectionClosedOK" in repr(error), repr(error)
    try:
        async with _call(call_id=number):
            raise AssertionError("a sideband to a call that has ended")
    except Exception as error:
        assert "404" in str(error), repr(error)
    await peer.close()


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]]())
