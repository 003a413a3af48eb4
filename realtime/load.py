"""Many callers in one process, for little CPU: real ICE, DTLS and SRTP, Opus encoded before it begins.

One clock protects and sends every call's packets; of those that arrive the header alone is read, which
SRTP leaves in the clear. Silence is sent between utterances, as browsers do. The load is a conversation:
the caller speaks 40 % of the time, the bot answers 5 s (the other 40 %), and one turn in five talks over
the answer. At full duplex both sides always sound: the caller's speech has no pauses, and each answer is
asked for as soon as the one before has ended.

Lateness of a packet that arrives: how long after the earliest packet of its talkspurt, less the time
between their timestamps. It includes this process's own delay, which is measured beside it.
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

import httpx2
from aiortc import RTCSessionDescription

from media import aiortc_private
from media.network import Network
from media.text import LABEL

FRAME_S: Final = 0.02
PAUSE_S: Final = 2.0
TURN_S: Final = 12.5
"""Speech, the configured silence, the answer, a pause."""
SPOKEN_S: Final = 5.0
"""The caller speaks as long as the bot answers; with the pause between, each has 40 % of the time."""
_TICKS: Final = 960
_HALF: Final = 1 << 31
"""Of the range of a timestamp."""
_STEP_S: Final = 0.001
"""Calls are spread over the milliseconds of a packet."""
_TALKS_OVER: Final = 0.2
_OPENING_AT_ONCE: Final = 4
_CONNECT_S: Final = 15.0
_HEADER: Final = struct.Struct("!BBHII")

Spoken = Sequence[Sequence[bytes]]
"""Utterances of Opus packets, 20 ms each."""


class LoadError(Exception):
    """A call could not be opened; the message says why."""


class LoadCall:
    """One caller: what it sends next, and what has come. Implements `aiortc_private.Tap`."""

    def __init__(self, network: Network, chance: random.Random, *, duplex: bool) -> None:
        self._chance = chance
        self._duplex = duplex
        self._connection = aiortc_private.new_connection(max_bundle=True)
        self._line = self._connection.addTransceiver("audio", "sendrecv")
        aiortc_private.silence_tracks(self._line)
        self._channel = self._connection.createDataChannel(LABEL)
        self._channel.on("message", self._event)
        self._dtls = self._line.receiver.transport
        aiortc_private.gather_on(self._dtls.transport, network.open_sockets, self)
        self._changed = asyncio.Event()
        self._dtls.on("statechange", self._changed.set)
        self._wire: aiortc_private.Wire | None = None
        self.location = self.token = ""
        self._speech: Sequence[bytes] = ()
        self._position = 0
        self._speaks_at = 0.0
        self._payload_type = 0
        self._ssrc = aiortc_private.own_ssrc(self._line)
        self._sequence, self._timestamp = chance.randrange(1 << 15), chance.randrange(1 << 31)
        self.sent = self.received = self.lost = self.answers = 0
        self.lateness_s: list[float] = []
        self._is_measuring = False
        self._next: int | None = None
        self._expected = -1
        self._origin: int | None = None
        """Timestamp at which the talkspurt began: they wrap, and their differences do not."""
        self._earliest = float("inf")
        self._spurt: list[float] = []

    async def offer(self) -> str:
        await self._connection.setLocalDescription()
        return self._connection.localDescription.sdp

    async def accept(self, answer: str) -> None:
        """Until DTLS is up. Raises `LoadError`."""
        lines = [line for line in answer.splitlines() if not line.startswith("a=end-of-candidates")]
        await self._connection.setRemoteDescription(RTCSessionDescription("\r\n".join([*lines, ""]), "answer"))
        kept = aiortc_private.keep_codec(self._line, ["opus"])
        if kept is None:
            raise LoadError("the answer has no Opus")
        _, self._payload_type = kept
        try:
            async with asyncio.timeout(_CONNECT_S):
                while self._dtls.state != "connected":
                    if self._dtls.state in ("failed", "closed"):
                        raise LoadError(f"the connection is {self._dtls.state}")
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise LoadError(f"not connected after {_CONNECT_S:.0f} s") from None
        self._wire = aiortc_private.Wire(self._dtls)
        self._speaks_at = time.monotonic() + (0.0 if self._duplex else self._chance.uniform(0, TURN_S))
        self._begin()

    def _begin(self) -> None:
        if not self._duplex:
            return
        if self._channel.readyState != "open":
            self._channel.once("open", self._begin)
            return
        # The recogniser and the detector hear everything; answers come by `response.create` alone.
        detection = {"type": "server_vad", "create_response": False, "interrupt_response": False}
        session = {"type": "realtime", "audio": {"input": {"turn_detection": detection}}}
        self._tell({"type": "session.update", "session": session})
        self._tell({"type": "response.create"})

    def _tell(self, event: dict[str, Any]) -> None:
        self._channel.send(json.dumps(event))

    def send(self, now: float, utterances: Spoken, silence: bytes) -> None:
        """The next packet."""
        if self._wire is None:
            return
        if self._position >= len(self._speech) and now >= self._speaks_at:
            self._speech, self._position = self._chance.choice(utterances), 0
            # The answer's end moves it forward again; without an answer there is another try.
            self._speaks_at = now + (0.0 if self._duplex else SPOKEN_S + 2 * TURN_S)
        payload = silence
        if self._position < len(self._speech):
            payload = self._speech[self._position]
            self._position += 1
        header = _HEADER.pack(0x80, self._payload_type, self._sequence, self._timestamp & 0xFFFFFFFF, self._ssrc)
        self._wire.send_rtp(header + payload)
        self._sequence = self._sequence + 1 & 0xFFFF
        self._timestamp += _TICKS
        self.sent += 1

    def on_datagram(self, data: bytes) -> bool:
        if not 128 <= data[0] <= 191:
            return False
        if len(data) >= _HEADER.size and not 192 <= data[1] <= 223:
            self._packet(data, time.monotonic())
        return True

    def _packet(self, data: bytes, now: float) -> None:
        _, second, sequence, timestamp, _ = _HEADER.unpack_from(data)
        if self._next is not None:
            self.lost += (sequence - self._next) & 0x7FFF
        self._next = sequence + 1 & 0xFFFF
        self.received += 1
        # Stock aiortc marks every packet.
        begins = bool(second & 0x80) and timestamp != self._expected
        self._expected = timestamp + _TICKS & 0xFFFFFFFF
        if begins:
            self.answers += 1
            self.close_spurt()
        if begins or self._origin is None:
            self._origin = timestamp
        relative = now - ((timestamp - self._origin + _HALF & 2 * _HALF - 1) - _HALF) / 48_000
        self._earliest = min(self._earliest, relative)
        if self._is_measuring:
            self._spurt.append(relative)

    def _event(self, text: str | bytes) -> None:
        kind = json.loads(text)["type"]
        now = time.monotonic()
        if self._duplex:
            if kind in ("output_audio_buffer.stopped", "output_audio_buffer.cleared"):
                self._tell({"type": "response.create"})
        elif kind == "output_audio_buffer.started" and self._chance.random() < _TALKS_OVER:
            self._speaks_at = now + self._chance.uniform(1, 4)
        elif kind == "output_audio_buffer.stopped":
            self._speaks_at = now + self._chance.uniform(0.5, 1.5) * PAUSE_S

    def measure(self) -> None:
        """Count from here on."""
        self.sent = self.received = self.lost = self.answers = 0
        self.lateness_s.clear()
        self._is_measuring = True

    def close_spurt(self) -> None:
        self.lateness_s += [max(0.0, relative - self._earliest) for relative in self._spurt]
        self._spurt.clear()
        self._earliest = float("inf")

    async def close(self) -> None:
        self._wire = None
        await self._connection.close()
        self._dtls.remove_all_listeners()
        aiortc_private.abort_sockets(self._dtls.transport)


class Load:
    """Callers of one server, kept in time by one clock.

    `utterances`: what they say, `SPOKEN_S` each; `silence`: one packet of it.
    """

    def __init__(
        self, url: str, key: str, utterances: Spoken, silence: bytes, *, duplex: bool = False, seed: int = 1
    ) -> None:
        self._http = httpx2.AsyncClient(base_url=url, timeout=30, trust_env=False)
        self._key = key
        self._network = Network(interfaces=["127.0.0.1"])
        self._duplex = duplex
        self._chance = random.Random(seed)
        self._utterances = utterances
        self._silence = silence
        self.calls: list[LoadCall] = []
        self.refused = 0
        self.own_lateness_s: list[float] = []

    async def open(self, count: int) -> None:
        """`count` more calls, a few at once. Those refused with 503 are counted. Raises `LoadError`."""
        gate = asyncio.Semaphore(_OPENING_AT_ONCE)

        async def one() -> None:
            async with gate:
                await self._open()

        await asyncio.gather(*(one() for _ in range(count)))

    async def _open(self) -> None:
        headers = {"Authorization": f"Bearer {self._key}"}
        answer = await self._http.post("/v1/ai/realtime/token", json={}, headers=headers)
        if answer.status_code != 200:
            raise LoadError(f"no token: {answer.status_code}: {answer.text}")
        call = LoadCall(self._network, random.Random(self._chance.random()), duplex=self._duplex)
        call.token = answer.json()["token"]
        headers = {"Authorization": f"Bearer {call.token}", "Content-Type": "application/sdp"}
        response = await self._http.post("/v1/ai/realtime/calls", content=await call.offer(), headers=headers)
        if response.status_code != 201:
            self.refused += response.status_code == 503
            await call.close()
            if response.status_code != 503:
                raise LoadError(f"{response.status_code}: {response.text}")
            return
        call.location = response.headers["Location"]
        self.calls.append(call)
        await call.accept(response.text)

    async def run(self, seconds: float) -> None:
        """Send every call's packets for `seconds`."""
        origin, step = time.monotonic(), 0
        phases = round(FRAME_S / _STEP_S)
        while step < seconds / _STEP_S:
            now = time.monotonic()
            due = int((now - origin) / _STEP_S)
            while step <= due:
                self.own_lateness_s.append(now - origin - step * _STEP_S)
                for call in self.calls[step % phases :: phases]:
                    call.send(now, self._utterances, self._silence)
                step += 1
            await asyncio.sleep(max(0.0, origin + step * _STEP_S - time.monotonic()))

    def measure(self) -> None:
        """Count from here on."""
        self.own_lateness_s.clear()
        for call in self.calls:
            call.measure()

    @property
    def lateness_s(self) -> list[float]:
        """Of every packet that came since `measure`, in order of size."""
        for call in self.calls:
            call.close_spurt()
        return sorted(late for call in self.calls for late in call.lateness_s)

    async def hang_up(self, count: int) -> None:
        """End `count` of the calls, the latest ones."""
        for _ in range(min(count, len(self.calls))):
            call = self.calls.pop()
            with suppress(httpx2.HTTPError):
                await self._http.delete(call.location, headers={"Authorization": f"Bearer {call.token}"})
            await call.close()

    async def close(self) -> None:
        await self.hang_up(len(self.calls))
        await self._http.aclose()
