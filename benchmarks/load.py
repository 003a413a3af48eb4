"""Many callers in one process, for little CPU: real ICE, DTLS and SRTP, Opus encoded before anything is measured.

    python -m benchmarks.load URL KEY --calls 75 --seconds 60 [--duplex]     -> JSON on stdout

A call is set up by stock aiortc; from then on its RTP bypasses it: packets are protected and sent by one clock, and
of those that arrive the header alone is read, which SRTP leaves in the clear. Silence is sent between utterances,
as browsers do. The load is a conversation: the caller speaks 40 % of the time, the bot answers 5 s (the other 40 %),
and one turn in five talks over the answer. With `duplex` both sides always sound: the caller's speech has no pauses,
and each answer is asked for as soon as the one before has ended.

Lateness of a packet that arrives: how long after the earliest packet of its talkspurt, less the time between their
timestamps. It includes this process's own delay, which is reported beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import struct
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import httpx2
import pylibsrtp

from benchmarks import machine, speech
from benchmarks.figures import Json, percentile
from benchmarks.wire_client import Call, CallFailed

FRAME_S = 0.02
TICKS = 960
STEP_S = 0.001
"""Calls are spread over the milliseconds of a packet."""
SPOKEN_S = 5.0
"""The caller speaks as long as the bot answers; with the pause between, each has 40 % of the time."""
PAUSE_S = 2.0
TALKS_OVER = 0.2
OPENING_AT_ONCE = 4
TURN_S = 12.5
"""Speech, the configured silence, the answer, a pause."""
_HEADER = struct.Struct("!BBHII")


class LoadCall:
    """One caller: what it sends next, and what has come."""

    def __init__(self, call: Call, location: str, token: str, chance: random.Random, *, duplex: bool) -> None:
        self.call, self.location, self.token = call, location, token
        self._chance = chance
        self._duplex = duplex
        self._speech: Sequence[bytes] = ()
        self._position = 0
        self._speaks_at = time.monotonic() + (0.0 if duplex else chance.uniform(0, TURN_S))
        transport: Any = call._transport
        dtls: Any = transport
        pair = dtls.transport._connection._nominated[1]
        self._srtp: pylibsrtp.Session = dtls._tx_srtp
        self._socket = pair.protocol.transport
        self._to = pair.remote_addr
        self._take(pair.protocol)
        self._sequence, self._timestamp = chance.randrange(1 << 15), chance.randrange(1 << 31)
        # Not aiortc's own: its sender may have begun, and SRTP refuses a sequence that goes back.
        self._ssrc = call._connection.getSenders()[0]._ssrc ^ 1
        line: Any = call._connection.getTransceivers()[0]
        self._payload_type = line._codecs[0].payloadType
        self.sent = self.received = self.lost = self.answers = 0
        self.lateness_s: list[float] = []
        self.measuring = False
        self._next: int | None = None
        self._expected = -1
        self._earliest = float("inf")
        self._spurt: list[float] = []
        call.arrivals.event = self._event  # type: ignore[method-assign]
        call._channel.remove_all_listeners("message")
        call._channel.on("message", self._event)

    def _take(self, protocol: Any) -> None:
        """RTP goes past aiortc from here on."""
        other = protocol.datagram_received

        def received(data: bytes, address: Any) -> None:
            if 128 <= data[0] <= 191:
                if not 192 <= data[1] <= 223:
                    self._packet(data)
            else:
                other(data, address)

        protocol.datagram_received = received

    def _packet(self, data: bytes) -> None:
        now = time.monotonic()
        _, second, sequence, timestamp, _ = _HEADER.unpack_from(data)
        if self._next is not None:
            self.lost += (sequence - self._next) & 0x7FFF
        self._next = sequence + 1 & 0xFFFF
        self.received += 1
        # Stock aiortc marks every packet.
        begins = bool(second & 0x80) and timestamp != self._expected
        self._expected = timestamp + TICKS & 0xFFFFFFFF
        if begins:
            self.answers += 1
            self._close_spurt()
        relative = now - timestamp / 48_000
        self._earliest = min(self._earliest, relative)
        if self.measuring:
            self._spurt.append(relative)

    def _close_spurt(self) -> None:
        self.lateness_s += [max(0.0, relative - self._earliest) for relative in self._spurt]
        self._spurt.clear()
        self._earliest = float("inf")

    def _event(self, text: str | bytes) -> None:
        event = json.loads(text)
        kind = event["type"]
        now = time.monotonic()
        if self._duplex:
            if kind in ("output_audio_buffer.stopped", "output_audio_buffer.cleared"):
                self.call.send({"type": "response.create"})
        elif kind == "output_audio_buffer.started" and self._chance.random() < TALKS_OVER:
            self._speaks_at = now + self._chance.uniform(1, 4)
        elif kind == "output_audio_buffer.stopped":
            self._speaks_at = now + self._chance.uniform(0.5, 1.5) * PAUSE_S

    def start(self) -> None:
        channel = self.call._channel
        if channel.readyState != "open":
            channel.on("open", self.start)
        elif self._duplex:
            # The recogniser and the detector hear everything; answers come by `response.create` alone.
            detection = {"type": "server_vad", "create_response": False, "interrupt_response": False}
            session = {"type": "realtime", "audio": {"input": {"turn_detection": detection}}}
            self.call.send({"type": "session.update", "session": session})
            self.call.send({"type": "response.create"})

    def send(self, now: float, utterances: Sequence[Sequence[bytes]], silence: bytes) -> None:
        """The next packet."""
        if self._position >= len(self._speech) and now >= self._speaks_at:
            self._speech, self._position = self._chance.choice(utterances), 0
            # The answer's end moves it forward again; without an answer there is another try.
            self._speaks_at = now + (0.0 if self._duplex else SPOKEN_S + 2 * TURN_S)
        payload = silence
        if self._position < len(self._speech):
            payload = self._speech[self._position]
            self._position += 1
        header = _HEADER.pack(0x80, self._payload_type, self._sequence, self._timestamp & 0xFFFFFFFF, self._ssrc)
        self._socket.sendto(self._srtp.protect(header + payload), self._to)
        self._sequence = self._sequence + 1 & 0xFFFF
        self._timestamp += TICKS
        self.sent += 1

    def finish(self) -> None:
        self._close_spurt()


class Load:
    """`calls` callers of one server, each kept in time by one clock."""

    def __init__(self, url: str, key: str, *, duplex: bool, seed: int = 1) -> None:
        self._http = httpx2.AsyncClient(base_url=url, timeout=30)
        self._key = key
        self._duplex = duplex
        self._chance = random.Random(seed)
        self._utterances = _utterances()
        self._silence = speech.silence()
        self.calls: list[LoadCall] = []
        self.refused = 0
        self.own_lateness_s: list[float] = []

    async def open(self, count: int) -> None:
        """Set up `count` calls, a few at once. Those refused with 503 are counted."""
        gate = asyncio.Semaphore(OPENING_AT_ONCE)

        async def one() -> None:
            async with gate:
                await self._open()

        await asyncio.gather(*(one() for _ in range(count)))

    async def _open(self) -> None:
        headers = {"Authorization": f"Bearer {self._key}"}
        answer = await self._http.post("/v1/ai/realtime/token", json={}, headers=headers)
        token = answer.json()["token"]
        call = Call()
        offer = await call.offer()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"}
        response = await self._http.post("/v1/ai/realtime/calls", content=offer, headers=headers)
        if response.status_code != 201:
            self.refused += response.status_code == 503
            await call.close()
            if response.status_code != 503:
                raise CallFailed(f"{response.status_code}: {response.text}")
            return
        call.track.stop()  # from here on packets are ours
        await call.accept(response.text)
        seed = random.Random(self._chance.random())
        made = LoadCall(call, response.headers["Location"], token, seed, duplex=self._duplex)
        made.start()
        self.calls.append(made)

    async def run(self, seconds: float) -> None:
        """Send every call's packets for `seconds`."""
        origin, step = time.monotonic(), 0
        phases = round(FRAME_S / STEP_S)
        while step < seconds / STEP_S:
            now = time.monotonic()
            due = int((now - origin) / STEP_S)
            while step <= due:
                self.own_lateness_s.append(now - origin - step * STEP_S)
                for call in self.calls[step % phases :: phases]:
                    call.send(now, self._utterances, self._silence)
                step += 1
            await asyncio.sleep(max(0.0, origin + step * STEP_S - time.monotonic()))

    def measure(self) -> None:
        self.own_lateness_s.clear()
        for call in self.calls:
            call.sent = call.received = call.lost = call.answers = 0
            call.measuring = True

    def result(self) -> Json:
        for call in self.calls:
            call.finish()
        late = sorted(late for call in self.calls for late in call.lateness_s)
        return {
            "calls": len(self.calls),
            "refused": self.refused,
            "packets_sent": sum(call.sent for call in self.calls),
            "packets_received": sum(call.received for call in self.calls),
            "packets_missing": sum(call.lost for call in self.calls),
            "answers": sum(call.answers for call in self.calls),
            "lateness_ms": {f"p{rank}": round(percentile(late, rank) * 1000, 2) for rank in (50, 95, 99)}
            if late
            else {},
            "own_lateness_ms_p99": round(percentile(self.own_lateness_s, 99) * 1000, 2),
        }

    async def close(self) -> None:
        for call in self.calls:
            with suppress(httpx2.HTTPError):
                await self._http.delete(call.location, headers={"Authorization": f"Bearer {call.token}"})
            await call.call.close()
        await self._http.aclose()


def _utterances() -> list[list[bytes]]:
    """Recorded speech of `SPOKEN_S`, clips one after the other."""
    clips = speech.load()
    made = []
    for first in range(len(clips)):
        packets: list[bytes] = []
        while len(packets) < SPOKEN_S / FRAME_S:
            packets += clips[(first + len(made)) % len(clips)].packets
        made.append(packets[: round(SPOKEN_S / FRAME_S)])
    return made


async def generate(url: str, key: str, calls: int, seconds: float, *, duplex: bool, pid: int) -> Json:
    """Open the calls, let them settle, and measure `seconds` of them. `pid`: of the server."""
    load = Load(url, key, duplex=duplex)
    try:
        await load.open(calls)
        await load.run(2.0 if duplex else TURN_S)
        load.measure()
        began = machine.process_seconds(pid), time.process_time(), time.monotonic()
        await load.run(seconds)
        ended = machine.process_seconds(pid), time.process_time(), time.monotonic()
        result = load.result()
    finally:
        await load.close()
    assert began[0] is not None
    assert ended[0] is not None
    server, own, elapsed = (after - before for before, after in zip(began, ended, strict=True))  # type: ignore[operator]
    per_call = server / elapsed / max(1, result["calls"]) * 1000
    return result | {
        "seconds": round(elapsed, 1),
        "server_cores": round(server / elapsed, 3),
        "generator_cores": round(own / elapsed, 3),
        "ms_per_call_second": round(per_call, 2),
        "calls_per_core": round(1000 / per_call, 1),
        "bot_sounds": round(result["packets_received"] * FRAME_S / elapsed / max(1, result["calls"]), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("key")
    parser.add_argument("--calls", type=int, default=75)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--duplex", action="store_true")
    parser.add_argument("--pid", type=int, required=True, help="of the server, whose CPU time is read")
    options = parser.parse_args()
    work = generate(options.url, options.key, options.calls, options.seconds, duplex=options.duplex, pid=options.pid)
    with machine.undisturbed() as goes_first:
        print(json.dumps(asyncio.run(work) | {"goes_first": goes_first}))


if __name__ == "__main__":
    main()
