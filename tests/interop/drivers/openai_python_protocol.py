"""Everything but turns: secrets, keys, configuration, errors, items, and a WebRTC call with its sideband."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import time
from typing import Any

import aioice.ice
import openai
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack
from openai_call import RATE, Call, client_of, connected, main, refused, said


class Peer:
    """A stock aiortc caller with a silent microphone; what comes on its data channel is recorded."""

    def __init__(self) -> None:
        aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
        self.closed = asyncio.Event()
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._peer = RTCPeerConnection()
        self._peer.addTrack(AudioStreamTrack())
        self._peer.createDataChannel("oai-events").on("message", self._hear)
        self._peer.on("connectionstatechange", self._look)

    def _hear(self, message: str) -> None:
        with open(os.environ["RECORD"], "a") as record:
            record.write(message + "\n")
        self._events.put_nowait(json.loads(message))

    def _look(self) -> None:
        if self._peer.connectionState in ("closed", "failed"):
            self.closed.set()

    async def offer(self) -> str:
        await self._peer.setLocalDescription(await self._peer.createOffer())
        return str(self._peer.localDescription.sdp)

    async def accept(self, sdp: str) -> None:
        await self._peer.setRemoteDescription(RTCSessionDescription(sdp=sdp, type="answer"))

    async def until(self, kind: str) -> dict[str, Any]:
        async with asyncio.timeout(20):
            while (event := await self._events.get())["type"] != kind:
                assert event["type"] != "response.output_audio.delta", "no audio on the data channel"
        return event


async def mint() -> None:
    secret = await client_of().realtime.client_secrets.create(
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
        async with client_of(secret.value).realtime.connect(model="gpt-realtime") as connection:
            call = Call(connection)
            assert (await call.next()).session.instructions == "Be brief."
            await call.ask("Tell me a joke.")
            assert (await call.answer()).status == "completed"


async def wrong_key() -> None:
    client = client_of("ek_nonsense")
    async with refused(openai.AuthenticationError, "401"):
        await client.realtime.client_secrets.create()
    async with refused(Exception, "401"), client.realtime.connect(model="gpt-realtime"):
        pass


async def defaults() -> None:
    async with connected() as call:
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
    async with connected() as call:
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
    async with connected() as call:
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


async def item_editing() -> None:
    async with connected() as call:
        items = call.connection.conversation.item
        await items.create(item=said("second") | {"id": "item_2"})
        assert (await call.until("conversation.item.done")).item.id == "item_2"
        await items.create(item=said("first") | {"id": "item_1"}, previous_item_id="root")
        assert (await call.until("conversation.item.added")).previous_item_id is None
        await items.create(item=said("between") | {"id": "item_3"}, previous_item_id="item_1")
        await call.until("conversation.item.added")
        assert (await call.until("conversation.item.done")).previous_item_id == "item_1"
        await items.create(item=said("lost"), previous_item_id="item_9", event_id="ev_1")
        error = (await call.until("error")).error
        assert (error.param, error.event_id) == ("previous_item_id", "ev_1")
        await items.retrieve(item_id="item_3")
        assert (await call.until("conversation.item.retrieved")).item.content[0].text == "between"
        await items.delete(item_id="item_3")
        assert (await call.until("conversation.item.deleted")).item_id == "item_3"
        await items.retrieve(item_id="item_3", event_id="ev_2")
        assert (await call.until("error")).error.event_id == "ev_2"


async def an_image_for_a_model_that_does_not_see_is_refused_and_the_call_goes_on() -> None:
    picture = "data:image/png;base64," + base64.b64encode(b"\x89PNG").decode()
    async with connected() as call:
        await call.update(instructions="Be kind. " * 5000)
        content = [{"type": "input_text", "text": "Tell me a joke."}, {"type": "input_image", "image_url": picture}]
        item = {"type": "message", "role": "user", "content": content}
        await call.connection.conversation.item.create(item=item, event_id="ev_1")
        error = (await call.until("error")).error
        assert (error.param, error.event_id) == ("item.content[1]", "ev_1"), error
        await call.ask("Tell me a joke.")
        assert (await call.until("response.done")).response.status == "completed"


async def what_cannot_be_is_refused_by_name() -> None:
    refused = {
        "session.prompt": {"prompt": {"id": "pmpt_1"}},
        "session.tools[0].type": {"tools": [{"type": "mcp", "server_label": "x", "server_url": "https://x.test"}]},
        "session.audio.output.speed": {"audio": {"output": {"speed": 9}}},
        "session.audio.input.format.rate": {"audio": {"input": {"format": {"type": "audio/pcm", "rate": 16000}}}},
        "session.output_modalities": {"output_modalities": ["audio", "text"]},
    }
    async with connected() as call:
        for param, session in refused.items():
            await call.connection.session.update(session={"type": "realtime", **session}, event_id=f"ev_{param}")
            error = (await call.until("error")).error
            assert (error.param, error.event_id) == (param, f"ev_{param}"), error


async def webrtc_call_with_sideband_and_hang_up() -> None:
    peer = Peer()
    client = client_of()
    session = {"type": "realtime", "model": "gpt-realtime", "instructions": "From the call."}
    answer = await client.realtime.calls.create(sdp=await peer.offer(), session=session)
    assert answer.response.status_code == 201
    location = answer.response.headers["location"]
    assert location.startswith("/v1/realtime/calls/rtc_"), location
    number = location.split("/")[-1]
    await peer.accept(answer.text)
    created = await peer.until("session.created")
    assert created["session"]["instructions"] == "From the call."
    async with connected(call_id=number) as side:
        assert side.events[0].session.id == created["session"]["id"]
        assert (await side.update(instructions="From the side.")).instructions == "From the side."
        assert (await peer.until("session.updated"))["session"]["instructions"] == "From the side."
        await side.ask("Tell me a very long story.")
        started = await peer.until("output_audio_buffer.started")
        await side.until("output_audio_buffer.started")
        await side.connection.output_audio_buffer.clear()
        assert (await peer.until("output_audio_buffer.cleared"))["response_id"] == started["response_id"]
        await client.realtime.calls.hangup(number)
        async with refused(Exception, "1000"):
            while True:
                await side.next()
    async with asyncio.timeout(10):
        await peer.closed.wait()
    async with refused(Exception, "404"), connected(call_id=number):
        pass


if __name__ == "__main__":
    main(globals())
