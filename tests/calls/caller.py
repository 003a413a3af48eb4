"""A caller as any Python user would write it: a stock aiortc connection, plain HTTP, the `oai-events` channel.

It shares no code with the product. Every server event is kept, and held against the published types and
order: `close` raises what was wrong. With a `LossyCable` between the two sides the audio packets are
counted on the wire, and the line can be made bad, or be cut without a word.
"""

from __future__ import annotations

import asyncio
import contextlib
import fractions
import json
import re
import time
import wave
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from tests.calls.server import Server
from tests.media.lossy import LossyCable
from tests.media.webrtc import until
from tests.realtime.live.orders import OrderChecker

CALLS = "/v1/ai/realtime/calls"
SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
RATE = 16_000
"""Hz of the clips; aiortc brings them to Opus's 48 kHz."""
FRAME = RATE // 50
WAIT_S = 30.0

Json = dict[str, Any]
Answer = tuple[int, dict[str, str], bytes]


def clip(path: Path) -> np.ndarray:
    """A 16 kHz mono clip in whole frames."""
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getnchannels()) == (RATE, 1)
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    return np.concatenate([pcm, np.zeros(-len(pcm) % FRAME, np.int16)])


class Microphone(MediaStreamTrack):
    """A packet every 20 ms, as from a browser: what is to be said, else silence."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._frames: deque[np.ndarray | bytes] = deque()
        self._sent = 0
        self._began: float | None = None
        self._drained = asyncio.Event()

    def start(self, pcm: np.ndarray) -> None:
        """Begin to say 16 kHz samples."""
        self._drained.clear()
        self._frames.extend(pcm[at : at + FRAME] for at in range(0, len(pcm), FRAME))

    async def say(self, pcm: np.ndarray) -> None:
        """16 kHz samples; returns when the last of them has left."""
        self.start(pcm)
        await asyncio.wait_for(self._drained.wait(), WAIT_S)

    async def send(self, payloads: list[bytes]) -> None:
        """RTP payloads as they are."""
        self._drained.clear()
        self._frames.extend(payloads)
        await asyncio.wait_for(self._drained.wait(), WAIT_S)

    async def recv(self) -> av.AudioFrame | av.Packet:
        if self._began is None:
            self._began = time.monotonic()
        await asyncio.sleep(max(0.0, self._began + self._sent * 0.02 - time.monotonic()))
        index, self._sent = self._sent, self._sent + 1
        piece = self._frames.popleft() if self._frames else np.zeros(FRAME, np.int16)
        if not self._frames:
            self._drained.set()
        if isinstance(piece, bytes):
            packet = av.Packet(piece)
            packet.pts, packet.time_base = index * 960, fractions.Fraction(1, 48_000)
            return packet
        frame = av.AudioFrame.from_ndarray(piece.reshape(1, -1), format="s16", layout="mono")
        frame.pts, frame.sample_rate, frame.time_base = index * FRAME, RATE, fractions.Fraction(1, RATE)
        return frame


class Caller:
    """`speaks`: with a microphone; else the audio line is there but nothing is ever sent on it. `codec`: the only
    one of the audio, where it is not all that aiortc has."""

    def __init__(
        self, server: Server, token: str, *, speaks: bool = True, video: bool = False, codec: str | None = None
    ) -> None:
        self.server = server
        self.token = token
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.microphone = Microphone()
        self.events: list[Json] = []
        self._checker = OrderChecker()
        self._out_of_order: AssertionError | ValueError | None = None
        self.heard: list[np.ndarray] = []
        self.heard_hz = 48_000
        self.location = ""
        self.offered: str | bytes = b""
        self.answered = b""
        """What was posted last, and the body that came back."""
        self.request_id = ""
        self.over = asyncio.Event()
        """The connection is closed, whoever closed it."""
        self.cable: LossyCable | None = None
        self._next = 0
        self._news = asyncio.Event()
        self._listening: list[asyncio.Task[None]] = []
        if video:
            self.connection.addTransceiver("video")
        if speaks:
            self.connection.addTrack(self.microphone)
        else:
            self.connection.addTransceiver("audio")
        if codec is not None:
            known = RTCRtpSender.getCapabilities("audio").codecs
            chosen = [each for each in known if each.mimeType.lower() == f"audio/{codec}"]
            self.connection.getTransceivers()[-1].setCodecPreferences(chosen)
        self.channel = self.connection.createDataChannel("oai-events")
        self.channel.on("message", self._on_message)
        self.connection.on("track", self._on_track)
        self.connection.on("connectionstatechange", self._on_state)

    # --- dialling -----------------------------------------------------------------------------

    async def offer(self) -> str:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def post(self, offer: str | bytes, *, content_type: str = SDP) -> Answer:
        body = offer.encode() if isinstance(offer, str) else offer
        answer = await self.server.request("POST", CALLS, body, credential=self.token, content_type=content_type)
        self.location = answer[1].get("location", self.location)
        self.offered, self.answered, self.request_id = offer, answer[2], answer[1]["x-request-id"]
        return answer

    async def patch(self, fragment: str) -> Answer:
        return await self.server.request(
            "PATCH", self.location, fragment.encode(), credential=self.token, content_type=FRAGMENT
        )

    async def hang_up(self) -> Answer:
        return await self.server.request("DELETE", self.location, credential=self.token)

    async def describe(self, answer: str) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def connected(self) -> None:
        await until(lambda: self.channel.readyState == "open", "the channel opened", WAIT_S)

    async def lay_cable(self, answer: str) -> str:
        """The answer with the cable's port in place of the server's candidates."""
        ports = re.findall(r"^a=candidate:\S+ 1 udp \d+ 127\.0\.0\.1 (\d+) ", answer, re.MULTILINE)
        self.cable = LossyCable(("127.0.0.1", int(ports[0])))
        port = await self.cable.open()
        bare = re.sub(r"a=candidate:(?!\S+ 1 udp \d+ 127\.0\.0\.1 ).*\r\n", "", answer)
        return re.sub(r"(a=candidate:\S+ 1 udp \d+ 127\.0\.0\.1 )\d+", rf"\g<1>{port}", bare)

    async def close(self) -> None:
        if self.location:
            await self.hang_up()
        # aiortc closes by itself when the other side does; was that cancelled in the middle, it would never be done.
        await asyncio.wait_for(self.connection.close(), WAIT_S)
        for task in self._listening:
            task.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        if self.cable is not None:
            self.cable.close()
        self.orders()

    # --- talking ------------------------------------------------------------------------------

    def send(self, event: Json | str | bytes) -> None:
        self.channel.send(json.dumps(event) if isinstance(event, dict) else event)

    def ask(self, text: str) -> None:
        """Typed text, and an answer to it."""
        item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
        self.send({"type": "conversation.item.create", "item": item})
        self.send({"type": "response.create"})

    def skip(self) -> None:
        """What has come so far is not waited for any more."""
        self._next = len(self.events)

    async def wait_for(self, *types: str, seconds: float = WAIT_S) -> Json:
        """The next event of these types; those before it are passed over."""
        seen = self._next
        try:
            async with asyncio.timeout(seconds):
                while True:
                    while self._next < len(self.events):
                        event = self.events[self._next]
                        self._next += 1
                        if event["type"] in types:
                            return event
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            came = [event["type"] for event in self.events[seen:]]
            raise AssertionError(f"no {' or '.join(types)} in {seconds:g} s; came: {came}") from None

    def of(self, kind: str) -> list[Json]:
        """Every event of this type so far."""
        return [event for event in self.events if event["type"] == kind]

    def sound(self) -> np.ndarray:
        """What was heard, at `heard_hz`: 48 kHz, left channel, or 8 kHz when that was negotiated."""
        return np.concatenate([np.zeros(0, np.int16), *self.heard])

    def orders(self) -> OrderChecker:
        """All events so far, in a legal order."""
        if self._out_of_order is not None:
            raise self._out_of_order
        return self._checker

    @property
    def session_id(self) -> str:
        return str(self.events[0]["session"]["id"])

    async def stats(self) -> dict[str, float]:
        """What the server counts of this call."""
        shown = await self.server.get(f"/v1/ai/realtime/sessions/{self.session_id}")
        return shown["media"]

    def spoil(self, change: Callable[[bytes], bytes]) -> None:
        """From now on every audio packet goes through `change` before it is encrypted."""
        transport = self.connection.getTransceivers()[0].sender.transport
        send = type(transport)._send_rtp

        async def spoiled(data: bytes) -> None:
            await send(transport, data if 192 <= data[1] <= 223 else change(data))

        transport._send_rtp = spoiled

    # --- what aiortc tells --------------------------------------------------------------------

    def _on_message(self, message: str | bytes) -> None:
        event = json.loads(message)
        self.events.append(event)
        self._news.set()
        try:
            self._checker.see(event)
        except (AssertionError, ValueError) as error:
            self._out_of_order = self._out_of_order or error

    def _on_state(self) -> None:
        if self.connection.connectionState in ("closed", "failed"):
            self.over.set()

    def _on_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio":
            self._listening.append(asyncio.ensure_future(self._listen(track)))

    async def _listen(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                self.heard_hz = frame.sample_rate
                self.heard.append(frame.to_ndarray().reshape(-1, len(frame.layout.channels))[:, 0])


def code(body: bytes) -> str:
    """The code of an error's body."""
    return str(json.loads(body)["error"]["code"])


def without_candidates(sdp: str) -> str:
    return re.sub(r"a=(candidate:.*|end-of-candidates)\r\n", "", sdp)


@asynccontextmanager
async def dial(
    server: Server,
    *,
    token: str | None = None,
    speaks: bool = True,
    codec: str | None = None,
    cable: bool = False,
    edit_offer: Callable[[str], str] = str,
    edit_answer: Callable[[str], str] = str,
    **wish: object,
) -> AsyncIterator[Caller]:
    """A call that is up. Closing it checks the order of everything that was told. `wish`: for the token."""
    caller = Caller(server, token or str((await server.token(**wish))["token"]), speaks=speaks, codec=codec)
    try:
        offer = edit_offer(await caller.offer())
        status, _, body = await caller.post(without_candidates(offer) if cable else offer)
        assert status == 201, body
        answer = edit_answer(body.decode())
        await caller.describe(await caller.lay_cable(answer) if cable else answer)
        await caller.connected()
        assert (await caller.wait_for("session.created"))["session"]["id"].startswith("sess_")
        yield caller
    finally:
        await caller.close()
