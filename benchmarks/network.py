"""Calls over bad networks, this server's receiver beside stock aiortc's, by the same seeds.

    python -m benchmarks.network [--seeds 10] [--write docs/media.md]

Each call is a real one, ICE and DTLS included, from a stock aiortc caller through a relay that loses, delays and
reorders by a seed (`tests/media/lossy.py`). The caller says both test clips. Of every 20 ms frame it is noted when its
packet came out of the relay and when its sound was handed on; words are what the embedded recogniser makes of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

from benchmarks import machine, report, section, speech, wire_client  # the last one lets aioice use loopback
from benchmarks.figures import Json, median, percentile
from benchmarks.recogniser import SAID, Recogniser
from media.jitter import PieceKind
from media.network import Network
from media.opus import OpusEncoder
from media.pacer import Pacer
from media.peer import Peer
from tests.media.lossy import BAD, CLEAN, Link, LossyCable
from tests.media.webrtc import Ear, StockCaller, Track, candidates, until
from tests.words import word_errors

assert wire_client

NETWORKS = {
    "nothing lost": CLEAN,
    "5 % lost, 50 ms ± 10 ms": BAD,
    "the same, copies in the packets": BAD,
    "10 % lost, 80 ms ± 30 ms": Link(loss=0.1, delay_ms=80, sigma_ms=30),
    "10 % lost in runs of 3, 50 ms, in order": Link(loss=0.1, burst=3, delay_ms=50, sigma_ms=10, in_order=True),
}
"""`copies`: the caller's Opus is SILK with in-band FEC, as a browser's is once losses are reported to it."""
TOGETHER = 5
"""Seeds at once; each is two calls."""
_SETTLED_S = 0.5


@dataclass
class Heard:
    """By RTP timestamp: seconds from the arrival of a frame's packet to its sound being handed on."""

    delays_s: dict[int, float] = field(default_factory=dict)
    late: int = 0
    recovered: int = 0
    sound: list[np.ndarray] = field(default_factory=list)


def packets(copies: bool) -> tuple[list[bytes], str]:
    """Both clips with silence around them, and the words in them."""
    voices, silence = speech.voices(), np.zeros(16_000, np.int16)
    pcm = np.concatenate([silence, *(np.concatenate([voices[name], silence]) for name in SAID)])
    raised = np.interp(np.arange(len(pcm) * 3 // 2) / 1.5, np.arange(len(pcm)), pcm).astype(np.int16)
    encoder = OpusEncoder(40_000)
    encoder.expect_loss(0.1 if copies else 0.0)
    frames = [raised[start : start + 480] for start in range(0, len(raised) - 479, 480)]
    return [encoder.encode(frame) for frame in frames], " ".join(SAID.values())


async def _connect(caller: StockCaller, answer: str) -> LossyCable:
    (address,) = set(candidates(answer))
    cable = LossyCable(address)
    port = await cable.open()
    await caller.accept(re.sub(r"(a=candidate:\S+ 1 udp \d+ 127\.0\.0\.1 )\d+", rf"\g<1>{port}", answer))
    return cable


async def own_call(payloads: list[bytes], link: Link, seed: int) -> Heard:
    heard, caller, pacer = Heard(), StockCaller(Held(payloads), channel=False), Pacer()
    peer = Peer(network=Network(interfaces=["127.0.0.1"]), pacer=pacer)
    ear = Ear()
    peer.attach(ear)
    answer = await peer.answer(re.sub(r"a=candidate:.*\r\n", "", await caller.offer()))
    cable = await _connect(caller, answer)
    try:
        await until(lambda: ear.opened_at is not None)
        _watch(peer, cable, heard)
        await _speak(caller, cable, link, seed, len(payloads))
        stats = peer.stats()
        heard.late, heard.recovered = int(stats["packets_late"]), round(stats["recovered_ms"] / 20)
        heard.sound = ear.audio
    finally:
        await caller.close()
        await peer.close()
        cable.close()
        pacer.stop()
    return heard


def _watch(peer: Peer, cable: LossyCable, heard: Heard) -> None:
    """Note each packet as it leaves the jitter buffer; it is decoded and handed on in the same call."""
    stream: Any = peer._stream
    buffer = stream._inbound._jitter
    stamps: dict[int, tuple[bytes, int]] = {}
    add, poll = buffer.add, buffer.poll

    def told(pieces: list[Any]) -> list[Any]:
        now = time.monotonic()
        for piece in pieces:
            if piece.kind is PieceKind.PACKET:
                stamp = stamps.pop(id(piece.payload))[1]
                heard.delays_s[stamp] = now - cable.arrived[stamp]
        return pieces

    def added(packet: Any, now: float) -> list[Any]:
        stamps[id(packet.payload)] = packet.payload, packet.timestamp
        return told(add(packet, now))

    buffer.add, buffer.poll = added, lambda now: told(poll(now))


async def stock_call(payloads: list[bytes], link: Link, seed: int) -> Heard:
    heard, caller = Heard(), StockCaller(Held(payloads), channel=False)
    connection = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    listening: list[asyncio.Task[None]] = []
    cables: list[LossyCable] = []

    async def listen(track: Any) -> None:
        resampler, first = av.AudioResampler(format="s16", layout="mono", rate=16_000), 0
        with suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                arrived = cables[0].arrived
                first = first or min(arrived)
                stamp = first + frame.pts  # told from the first frame on
                if stamp in arrived:
                    heard.delays_s[stamp] = time.monotonic() - arrived[stamp]
                for piece in resampler.resample(frame):
                    heard.sound.append(np.frombuffer(memoryview(piece.planes[0]), np.int16, piece.samples).copy())

    connection.on("track", lambda track: listening.append(asyncio.ensure_future(listen(track))))
    offer = re.sub(r"a=candidate:.*\r\n|a=end-of-candidates\r\n", "", await caller.offer())
    await connection.setRemoteDescription(RTCSessionDescription(offer, "offer"))
    await connection.setLocalDescription(await connection.createAnswer())
    cables.append(await _connect(caller, connection.localDescription.sdp))
    try:
        await until(lambda: connection.connectionState == "connected")
        await _speak(caller, cables[0], link, seed, len(payloads))
    finally:
        await caller.close()
        await connection.close()
        for task in listening:
            task.cancel()
        cables[0].close()
    return heard


class Held(Track):
    """Says nothing until the network is as bad as it is to be."""

    def __init__(self, payloads: list[bytes]) -> None:
        super().__init__(packets=payloads)
        self.may = asyncio.Event()
        self.over = asyncio.Event()

    async def recv(self) -> Any:
        await self.may.wait()
        try:
            return await super().recv()
        except MediaStreamError:
            self.over.set()
            raise


async def _speak(caller: StockCaller, cable: LossyCable, link: Link, seed: int, frames: int) -> None:
    cable.worsen(link, seed)
    track: Any = caller.connection.getSenders()[0].track
    track.may.set()
    await asyncio.wait_for(track.over.wait(), frames * 0.02 + 30)
    await asyncio.sleep(_SETTLED_S)


def judge(calls: list[Heard], sent: int, said: str, ear: Recogniser) -> Json:
    """Medians over the calls; delays over all frames of all calls."""
    delays = [delay * 1000 for call in calls for delay in call.delays_s.values()]
    words = len(said.split())
    understood = [ear.understand(np.concatenate(call.sound)) for call in calls]
    return {
        "calls": len(calls),
        "frames_not_heard": round(median([1 - (len(c.delays_s) + c.recovered) / sent for c in calls]), 4),
        "frames_recovered": round(median([c.recovered / sent for c in calls]), 4),
        "late": round(median([c.late / sent for c in calls]), 4),
        "delay_ms": {f"p{rank}": round(percentile(delays, rank), 1) for rank in (50, 95, 99)},
        "word_errors": round(median([word_errors(said, text) / words for text in understood]), 3),
    }


async def measure(seeds: int, say: Callable[[str], None]) -> Json:
    ear, result = Recogniser(), {}
    for name, link in NETWORKS.items():
        payloads, said = packets("copies" in name)
        own: list[Heard] = []
        stock: list[Heard] = []
        for first in range(0, seeds, TOGETHER):
            say(f"{name}: seeds from {first}")
            chosen = range(first, min(seeds, first + TOGETHER))
            calls = [call(payloads, link, seed) for call in (own_call, stock_call) for seed in chosen]
            done = await asyncio.gather(*calls)
            own, stock = own + done[: len(chosen)], stock + done[len(chosen) :]
        both = (("own", own), ("stock", stock))
        result[name] = {kind: judge(calls, len(payloads), said, ear) for kind, calls in both}
    return result


def page(result: Json) -> str:
    rows = []
    for network, sides in result.items():
        for side, name in (("own", "this server"), ("stock", "stock aiortc")):
            one = sides[side]
            delay = " / ".join(f"{one['delay_ms'][rank]:.0f}" for rank in ("p50", "p95", "p99"))
            shares = [f"{one[key]:.1%}" for key in ("frames_not_heard", "frames_recovered", "late")]
            shares[2] = shares[2] if side == "own" else "–"
            rows.append([network, name, *shares, delay, f"{one['word_errors']:.3f}"])
    calls = next(iter(result.values()))["own"]["calls"]
    head = ["network", "receiver", "not heard", "out of copies", "late", "held, ms p50 / p95 / p99", "word errors"]
    return f"""## Bad networks

`python -m benchmarks.network`: real calls from a stock aiortc caller through a relay that loses, delays and
reorders by a seed, {calls} seeds, this server's receiver and aiortc's own track beside each other. Shares and word
errors are medians over the seeds. A frame is *not heard* when its sound was made up or left out; *late* are packets
that came after they were given up. *Held* is the time from a packet's arrival to its sound being handed on, over all
frames. Words are those that pocketsphinx makes of both clips. *Copies*: the caller sends SILK with in-band FEC, as
browsers do once losses are reported to them; else its packets are CELT without.

{section.table(head, rows)}"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.network", description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--write", type=Path, metavar="FILE")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    result = asyncio.run(measure(options.seeds, report.progress(options)))
    whole = {"machine": machine.describe(), "networks": result}
    print(json.dumps(whole, indent=2))
    print(page(result), file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(whole, indent=2) + "\n")
    if options.write:
        section.put(options.write, "networks", page(result))


if __name__ == "__main__":
    main()
