"""A caller that measures: stock aiortc, pre-encoded packets out, arrival times in.

It shares no code with the product. Packets leave at exact deadlines without a break, silence
included, as a browser sends them; what arrives is noted where aiortc has just decrypted it, before
any jitter buffer, and goes no further, so that no decoder disturbs the clock. All times are
`time.monotonic()` seconds; a packet's time of sending is taken just before aiortc encrypts it.
"""

from __future__ import annotations

import asyncio
import json
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from types import TracebackType
from typing import Any, Self

import aioice.ice
import av
import httpx2
from aiortc import (
    RTCBundlePolicy,
    RTCConfiguration,
    RTCDataChannel,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from benchmarks.figures import Json
from benchmarks.speech import Utterance, silence

FRAME_S = 0.02
GAP_S = 0.1
"""A pause in the packets that is longer than this separates two answers."""
ENDS = ("output_audio_buffer.cleared", "output_audio_buffer.stopped")
"""Events that say that an answer's sound is over."""
CONNECT_S = 15.0
_TICKS = 960
"""RTP clock ticks in one packet."""
_TIME_BASE = Fraction(1, 48_000)

aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"] if use_ipv4 else []
"""aioice leaves loopback out; the measurement must stay off real interfaces."""


class CallFailed(RuntimeError):
    """The call could not be opened or used; the message says why."""


@dataclass(slots=True)
class Spoken:
    """One utterance on its way: when its speech began and ended on the wire."""

    utterance: Utterance
    starts_at: float
    onset_at: float | None = None
    ended_at: float | None = None
    onset: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)
    """Its last packet, silence after the speech included, has left."""


class SpeechTrack(MediaStreamTrack):
    """One Opus packet every 20 ms: silence, or the utterance that is due."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._silence = silence()
        self._deadline: float | None = None
        self._pts = 0
        self._spoken: Spoken | None = None
        self._position = 0
        self.lateness_s: list[float] = []
        """How long after its deadline each packet left."""

    def say(self, utterance: Utterance, onset_at: float) -> Spoken:
        """Speak so that the speech begins with the packet nearest to `onset_at`."""
        if self._spoken is not None:
            raise RuntimeError("one utterance at a time")
        self._spoken = Spoken(utterance, onset_at - (utterance.first + 0.5) * FRAME_S)
        self._position = 0
        return self._spoken

    async def recv(self) -> Any:
        if self.readyState != "live":
            raise MediaStreamError
        now = time.monotonic()
        self._deadline = now if self._deadline is None else self._deadline + FRAME_S
        if self._deadline > now:
            await asyncio.sleep(self._deadline - now)
        packet: Any = av.Packet(self._payload(self._deadline))
        packet.pts, packet.time_base = self._pts, _TIME_BASE
        self._pts += _TICKS
        self._sent(time.monotonic())
        return packet

    def _payload(self, due: float) -> bytes:
        spoken = self._spoken
        if spoken is None or due < spoken.starts_at:
            return self._silence
        self._position += 1
        return spoken.utterance.packets[self._position - 1]

    def _sent(self, now: float) -> None:
        assert self._deadline is not None
        self.lateness_s.append(now - self._deadline)
        spoken = self._spoken
        if spoken is None or not self._position:
            return
        index = self._position - 1
        if index == spoken.utterance.first:
            spoken.onset_at = now
            spoken.onset.set()
        if index == spoken.utterance.last:
            spoken.ended_at = now
            spoken.ended.set()
        if self._position == len(spoken.utterance.packets):
            self._spoken = None
            self._position = 0
            spoken.over.set()


@dataclass(slots=True)
class Answer:
    """Consecutive packets. A gap of more than 100 ms ends it, unless the packet behind goes on without
    the marker that begins a talkspurt (RFC 3551 section 4.1): then the sender had stalled."""

    first_at: float
    last_at: float
    packets: int = 1


class Arrivals:
    """What came from the server: packets gathered into answers, and events."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.events: list[tuple[float, Json]] = []
        self.lost = 0
        """Sequence numbers that never came: the figures need a clean wire."""
        self.stalls_s: list[float] = []
        """Gaps of more than 100 ms inside an answer: the server stood still."""
        self._sequence: int | None = None
        self._news = asyncio.Event()

    def packet(self, data: bytes) -> None:
        now = time.monotonic()
        marker, sequence = struct.unpack_from("!xBH", data)
        if self._sequence is not None:
            self.lost += (sequence - self._sequence - 1) & 0x7FFF
        self._sequence = sequence
        last = self.answers[-1] if self.answers else None
        gap = now - last.last_at if last is not None else 0.0
        if last is not None and (gap <= GAP_S or not marker & 0x80):
            if gap > GAP_S:
                self.stalls_s.append(gap)
            last.last_at = now
            last.packets += 1
            return
        self.answers.append(Answer(now, now))
        self._news.set()

    def event(self, text: str | bytes) -> None:
        self.events.append((time.monotonic(), json.loads(text)))
        self._news.set()

    async def answer(self, index: int, timeout: float) -> Answer:
        """Answer number `index` as soon as its first packet is there. Raises `TimeoutError`."""
        await self._until(lambda: len(self.answers) > index, timeout)
        return self.answers[index]

    async def finished(self, answer: Answer, timeout: float) -> bool:
        """Wait for the end of `answer`: reported by an event, and no packet for longer than the gap.

        False when that did not come in time.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            left = answer.last_at + GAP_S - time.monotonic()
            if left < 0 and any(self.between(kind, answer.first_at, deadline) for kind in ENDS):
                return True
            await asyncio.sleep(max(left, 0.0) + 0.005)
        return False

    async def wait_for(self, kind: str, timeout: float) -> Json:
        """The latest event of this type, once there is one. Raises `TimeoutError`."""
        await self._until(lambda: self._latest(kind) is not None, timeout)
        event = self._latest(kind)
        assert event is not None
        return event

    def between(self, kind: str, start: float, end: float) -> list[float]:
        """When events of this type came in an interval."""
        return [at for at, event in self.events if event["type"] == kind and start <= at <= end]

    def _latest(self, kind: str) -> Json | None:
        return next((event for _, event in reversed(self.events) if event["type"] == kind), None)

    async def _until(self, holds: Callable[[], bool], timeout: float) -> None:
        async with asyncio.timeout(timeout):
            while not holds():
                self._news.clear()
                await self._news.wait()


@dataclass(slots=True)
class SetUp:
    """`offered_at`: the POST of the offer begins. `answered_at`: its response is there."""

    offered_at: float = 0.0
    answered_at: float = 0.0
    connected_at: float = 0.0
    """DTLS is up on the caller's side."""


class Call:
    """An open call. `say` and `send` towards the server; `arrivals` from it."""

    def __init__(self) -> None:
        self.track = SpeechTrack()
        self.arrivals = Arrivals()
        self.set_up = SetUp()
        configuration = RTCConfiguration(iceServers=[], bundlePolicy=RTCBundlePolicy.MAX_BUNDLE)
        self._connection = RTCPeerConnection(configuration)
        self._connection.addTrack(self.track)
        self._channel: RTCDataChannel = self._connection.createDataChannel("oai-events")
        self._channel.on("message", self.arrivals.event)
        self._state_changed = asyncio.Event()
        self._transport = self._connection.getTransceivers()[0].sender.transport
        self._transport._handle_rtp_data = self._tap  # type: ignore[method-assign]
        self._transport.on("statechange", self._on_state)

    async def _tap(self, data: bytes, arrival_time_ms: int) -> None:
        self.arrivals.packet(data)

    def _on_state(self) -> None:
        if self._transport.state == "connected":
            self.set_up.connected_at = time.monotonic()
        self._state_changed.set()

    async def offer(self) -> str:
        await self._connection.setLocalDescription(await self._connection.createOffer())
        return self._connection.localDescription.sdp

    async def accept(self, answer: str) -> None:
        """Until DTLS is up. Raises `CallFailed`."""
        await self._connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        try:
            async with asyncio.timeout(CONNECT_S):
                while not self.set_up.connected_at:
                    if self._transport.state in ("failed", "closed"):
                        raise CallFailed(f"the connection is {self._transport.state}")
                    self._state_changed.clear()
                    await self._state_changed.wait()
        except TimeoutError:
            raise CallFailed(f"not connected after {CONNECT_S:.0f} s") from None

    def say(self, utterance: Utterance, onset_at: float) -> Spoken:
        return self.track.say(utterance, onset_at)

    def send(self, event: Json) -> None:
        self._channel.send(json.dumps(event))

    async def close(self) -> None:
        await self._connection.close()


class Caller:
    """Opens calls to one server over a connection that is kept, as a browser's is."""

    def __init__(self, url: str, api_key: str) -> None:
        self._http = httpx2.AsyncClient(base_url=url, timeout=CONNECT_S)
        self._key = api_key

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.aclose()

    @asynccontextmanager
    async def call(self, *, agent: str | None = None) -> AsyncIterator[Call]:
        """A connected call; leaving hangs up. The token is made, and the offer gathered, before the clock starts."""
        token = await self._token({"agent": agent} if agent else {})
        call = Call()
        location = ""
        try:
            offer = await call.offer()
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"}
            call.set_up.offered_at = time.monotonic()
            response = await self._http.post("/v1/ai/realtime/calls", content=offer, headers=headers)
            call.set_up.answered_at = time.monotonic()
            if response.status_code != 201:
                raise CallFailed(f"the offer was refused with {response.status_code}: {response.text}")
            location = response.headers["Location"]
            await call.accept(response.text)
            yield call
        finally:
            if location:
                await self._http.delete(location, headers={"Authorization": f"Bearer {token}"})
            await call.close()

    async def _token(self, wish: Json) -> str:
        headers = {"Authorization": f"Bearer {self._key}"}
        response = await self._http.post("/v1/ai/realtime/token", json=wish, headers=headers)
        if response.status_code != 200:
            raise CallFailed(f"no token, {response.status_code}: {response.text}")
        return str(response.json()["token"])
