"""Runs among carriers' own libraries and pipecat's serializers; the order is JSON on standard input, so is the answer.

call   a caller whose audio pipecat writes and reads: {"carrier", "url", "headers", "start": [...], "clip": PCM 16 kHz}
       -> {"pcm": base64 of what was heard (16 kHz), "flushes": [...], "their_flush", "unread": [...],
           "bytes": of encoded audio}
sign   what carriers' libraries sign and verify: [["twilio", secret, url, form, algorithm], ["telnyx", body, headers,
       key], ["vonage", token, secret]] -> [signature, whether it holds, whether it holds]
ncco   the document that Vonage's own models make of {"from", "uri", "content_type", "headers"}
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from pathlib import Path

QUIET_S = 1.5
FRAME = 640
KEPT = {"resampler_clear_after_secs": 60.0}
"""Our messages come every 200 ms, which its resampler would take for a pause."""


async def call(order: dict, clip: bytes) -> dict:
    import websockets
    from pipecat.frames.frames import InputAudioRawFrame, InterruptionFrame

    far_end = await serializer(order["carrier"])
    heard, flushes, unread, sizes = bytearray(), [], [], []
    last = time.monotonic() + 10.0

    async with websockets.connect(order["url"], additional_headers=order["headers"], compression=None) as socket:

        async def speak() -> None:
            at, due = 0, time.monotonic()
            while True:
                piece = clip[at : at + FRAME].ljust(FRAME, b"\0")
                at += FRAME
                message = await far_end.serialize(InputAudioRawFrame(audio=piece, sample_rate=16_000, num_channels=1))
                if message is not None:
                    await socket.send(message)
                due += 0.02
                await asyncio.sleep(max(0.0, due - time.monotonic()))

        async def listen() -> None:
            nonlocal last
            async for message in socket:
                sizes.append(payload_size(message))
                frame = await far_end.deserialize(message)
                if isinstance(frame, InputAudioRawFrame):
                    heard.extend(frame.audio)
                    last = time.monotonic()
                    continue
                data = None if isinstance(message, bytes) else json.loads(message)
                kind = None if data is None else data.get("event") or data.get("action")
                if kind in ("mark", "notify"):
                    await socket.send(played(order["carrier"], data))
                elif kind == "clear":
                    flushes.append(data)
                elif kind != "media":  # its resampler may keep back the first ones
                    unread.append(repr(message)[:200])

        for message in order["start"]:
            await socket.send(message)
        tasks = [asyncio.create_task(speak()), asyncio.create_task(listen())]
        try:
            while time.monotonic() < last + QUIET_S:
                done, _ = await asyncio.wait(tasks, timeout=0.05, return_when=asyncio.FIRST_COMPLETED)
                if done:
                    break
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "pcm": base64.b64encode(heard).decode(),
        "flushes": flushes,
        "their_flush": json.loads(await far_end.serialize(InterruptionFrame())),
        "unread": unread,
        "bytes": sum(sizes),
    }


async def serializer(carrier: str):
    from pipecat.processors.frame_processor import FrameProcessorSetup

    if carrier == "twilio":
        from pipecat.serializers.twilio import TwilioFrameSerializer as Serializer

        made = Serializer("MZ1", params=Serializer.InputParams(auto_hang_up=False, **KEPT))
    elif carrier == "telnyx":
        from pipecat.serializers.telnyx import TelnyxFrameSerializer as Serializer

        made = Serializer("32DE", "PCMU", "PCMU", params=Serializer.InputParams(auto_hang_up=False, **KEPT))
    else:
        from pipecat.serializers.vonage import VonageFrameSerializer as Serializer

        made = Serializer(Serializer.InputParams(**KEPT))
    setup = object.__new__(FrameProcessorSetup)
    setup.audio_in_sample_rate = setup.audio_out_sample_rate = 16_000
    await made.setup(setup)
    return made


def payload_size(message: str | bytes) -> int:
    if isinstance(message, bytes):
        return len(message)
    return len(base64.b64decode(json.loads(message).get("media", {}).get("payload", "")))


def played(carrier: str, mark: dict) -> str:
    """The answer to a mark, which pipecat has nothing for."""
    if carrier == "vonage":
        return json.dumps({"event": "websocket:notify", "payload": mark["payload"]})
    return json.dumps({"event": "mark", "mark": mark["mark"]})


def sign(orders: list[list]) -> list:
    return [{"twilio": by_twilio, "telnyx": by_telnyx, "vonage": by_vonage}[name](*rest) for name, *rest in orders]


def by_twilio(secret: str, url: str, form: dict, algorithm: str | None) -> str:
    from twilio.request_validator import RequestValidator

    return RequestValidator(secret).compute_signature(url, form, algorithm)


def by_telnyx(body: str, headers: dict, key: str) -> bool:
    from telnyx.lib.webhook_verification import WebhookVerificationError, verify_webhook_signature

    try:
        verify_webhook_signature(body, headers, key)
    except WebhookVerificationError:
        return False
    return True


def by_vonage(token: str, secret: str) -> bool:
    from vonage_jwt import verify_signature

    return bool(verify_signature(token, secret))


def ncco(order: dict) -> list:
    from vonage_voice.models.common import WebsocketAuthorization
    from vonage_voice.models.connect_endpoints import WebsocketEndpoint
    from vonage_voice.models.ncco import Connect

    endpoint = WebsocketEndpoint(
        uri=order["uri"],
        contentType=order["content_type"],
        headers=order["headers"],
        authorization=WebsocketAuthorization(type="vonage"),
    )
    return [Connect(endpoint=[endpoint], from_=order["from"]).model_dump(by_alias=True, exclude_none=True, mode="json")]


if __name__ == "__main__":
    given = json.load(sys.stdin)
    work = {
        "call": lambda: asyncio.run(call(given, Path(given["clip"]).read_bytes())),
        "sign": lambda: sign(given),
        "ncco": lambda: ncco(given),
    }
    json.dump(work[sys.argv[1]](), sys.stdout)
