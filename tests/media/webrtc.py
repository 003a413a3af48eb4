"""What the WebRTC tests share: a listener that keeps everything, a stock aiortc caller, and the wire between."""

import asyncio
import contextlib
import fractions
import re
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import av
import numpy as np
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError

from media.peer import Peer

DEADLINE_S = 5.0


async def until(condition: Callable[[], object], what: str = "", seconds: float = DEADLINE_S) -> None:
    """Wait until `condition()` is true; fail after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"never happened: {what or condition}"
        await asyncio.sleep(0.005)


class Ear:
    """A LegListener that keeps what it is told."""

    def __init__(self) -> None:
        self.audio: list[np.ndarray] = []
        self.texts: list[str] = []
        self.refused: list[tuple[str, str]] = []
        self.playout: list = []
        self.closed: list[str] = []
        self.told: list[str] = []
        self.opened_at: float | None = None

    def on_open(self) -> None:
        self.told.append("open")
        self.opened_at = time.monotonic()

    def on_text_open(self) -> None:
        self.told.append("text_open")

    def on_audio(self, pcm: np.ndarray, arrived_at: float) -> None:
        assert 1 <= len(pcm) <= 1920
        assert pcm.dtype == np.int16
        self.audio.append(pcm)

    def on_text(self, text: str) -> None:
        self.texts.append(text)

    def on_key(self, key: str) -> None:
        self.told.append(f"key {key}")

    def on_text_refused(self, code: str, detail: str) -> None:
        self.refused.append((code, detail))

    def on_playout(self, event: object) -> None:
        self.playout.append(event)

    def on_closed(self, reason: str) -> None:
        self.told.append("closed")
        self.closed.append(reason)

    def pcm(self) -> np.ndarray:
        return np.concatenate(self.audio) if self.audio else np.zeros(0, np.int16)


def tone(seconds: float, rate: int, hz: float = 440.0, level: float = 0.25) -> np.ndarray:
    return (level * 32767 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.int16)


def rms(pcm: np.ndarray) -> float:
    return float(np.sqrt(np.mean(pcm.astype(np.float64) ** 2))) if len(pcm) else 0.0


def loudest_hz(pcm: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(pcm.astype(np.float64) * np.hanning(len(pcm))))
    return float(np.argmax(spectrum) * rate / len(pcm))


class Track(MediaStreamTrack):
    """Plays 48 kHz mono samples in real time, then ends. Given `packets`, sends those as they are."""

    kind = "audio"

    def __init__(self, pcm: np.ndarray | None = None, packets: list[bytes] | None = None) -> None:
        super().__init__()
        self._pcm = pcm
        self._packets = packets
        self._sent = 0
        self._started: float | None = None

    async def recv(self) -> av.AudioFrame | av.Packet:
        if self._started is None:
            self._started = time.monotonic()
        await asyncio.sleep(max(0.0, self._started + self._sent * 0.02 - time.monotonic()))
        index, self._sent = self._sent, self._sent + 1
        base = fractions.Fraction(1, 48_000)
        if self._packets is not None:
            if index >= len(self._packets):
                raise MediaStreamError
            packet = av.Packet(self._packets[index])
            packet.pts, packet.time_base = index * 960, base
            return packet
        assert self._pcm is not None
        piece = self._pcm[index * 960 : (index + 1) * 960]
        if len(piece) < 960:
            raise MediaStreamError
        frame = av.AudioFrame.from_ndarray(piece.reshape(1, -1), format="s16", layout="mono")
        frame.pts, frame.sample_rate, frame.time_base = index * 960, 48_000, base
        return frame


@dataclass
class Packet:
    """One audio packet on its way to the caller: the header is not encrypted."""

    at: float
    payload_type: int
    marker: bool
    sequence: int
    timestamp: int
    ssrc: int


@dataclass
class Cable(asyncio.DatagramProtocol):
    """Carries datagrams between a caller and a peer, notes the audio packets, and can be cut."""

    peer: tuple[str, int]
    is_cut: bool = False
    packets: list[Packet] = field(default_factory=list)
    to_caller: int = 0
    _caller: tuple[str, int] | None = None
    _front: asyncio.DatagramTransport | None = None
    _back: asyncio.DatagramTransport | None = None

    async def open(self, host: str = "127.0.0.1") -> int:
        """The port that the caller must talk to; `host`: an address of ours that both sides reach."""
        loop = asyncio.get_running_loop()
        cable = self

        class Back(asyncio.DatagramProtocol):
            def datagram_received(self, data: bytes, addr: tuple) -> None:
                cable._from_peer(data)

        self._back, _ = await loop.create_datagram_endpoint(Back, local_addr=(host, 0))
        self._front, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=(host, 0))
        return self._front.get_extra_info("sockname")[1]

    def datagram_received(self, data: bytes, addr: tuple) -> None:
        self._caller = addr
        if not self.is_cut and self._back is not None:
            self._back.sendto(data, self.peer)

    def _from_peer(self, data: bytes) -> None:
        if self.is_cut or self._caller is None or self._front is None:
            return
        self.to_caller += 1
        if 128 <= data[0] <= 191 and not 192 <= data[1] <= 223:
            _, second, sequence, timestamp, ssrc = struct.unpack_from("!BBHII", data)
            self.packets.append(Packet(time.monotonic(), second & 127, second > 127, sequence, timestamp, ssrc))
        self._front.sendto(data, self._caller)

    def close(self) -> None:
        for transport in (self._front, self._back):
            if transport is not None:
                transport.close()


class StockCaller:
    """A bare aiortc RTCPeerConnection with an `oai-events` channel, as any Python user would write it."""

    def __init__(self, track: MediaStreamTrack | None = None, *, channel: bool = True) -> None:
        self.connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.texts: list[str] = []
        self.heard: list[np.ndarray] = []
        self._tasks: list[asyncio.Task] = []
        self.connection.on("track", self._on_track)
        if track is not None:
            self.connection.addTrack(track)
        else:
            self.connection.addTransceiver("audio", "sendrecv")
        self.channel = None
        if channel:
            self.channel = self.connection.createDataChannel("oai-events")
            self.channel.on("message", self.texts.append)

    def _on_track(self, track: MediaStreamTrack) -> None:
        self._tasks.append(asyncio.ensure_future(self._listen(track)))

    async def _listen(self, track: MediaStreamTrack) -> None:
        with contextlib.suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                self.heard.append(frame.to_ndarray().reshape(-1, 2)[:, 0])

    def pcm(self) -> np.ndarray:
        """48 kHz, left channel."""
        return np.concatenate(self.heard) if self.heard else np.zeros(0, np.int16)

    async def offer(self) -> str:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def accept(self, answer: str) -> None:
        await self.connection.setRemoteDescription(RTCSessionDescription(answer, "answer"))

    async def close(self) -> None:
        await self.connection.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def candidates(sdp: str) -> list[tuple[str, int]]:
    return [(m[1], int(m[2])) for m in re.finditer(r"^a=candidate:\S+ 1 udp \d+ (\S+) (\d+) typ host", sdp, re.M)]


@dataclass
class Call:
    peer: Peer
    ear: Ear
    caller: StockCaller
    cable: Cable
    answer: str
