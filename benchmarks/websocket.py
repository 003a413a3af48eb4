"""Listening calls over WebSockets: what 20 ms of audio cost, and how long a voice waits among many silent ones.

    python -m benchmarks.websocket [--calls 150] [--seconds 15] [--utterances 12] [--json FILE]

Every call appends 20 ms of PCM at 24 kHz as JSON, fifty times a second, from another process. The silent ones
append the noise of a quiet room: digital silence would be cheaper than anything that a microphone gives.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from benchmarks import machine, report, speech
from benchmarks.apart import measured
from benchmarks.figures import Json, summary
from benchmarks.server import Server
from media.resample import Resampler

PIECE_S = 0.02
PIECE = 480
"""Samples of 20 ms at 24 kHz."""
NOISE = 4.0
"""Standard deviation of the room's noise: about -78 dBFS."""
NOISES = 32
"""Different pieces of noise, which the calls send in turn."""
PHASES = 20
"""The calls are spread over the milliseconds of one piece."""
WARM_UP_S = 2.0
ANSWER_S = 5.0
"""What has not come by then has failed."""
PAUSE_S = 0.8
"""Quiet between utterances."""
CONFIG = "[limits]\ncalls = 2000\nloop_lag_ms = 10_000\n"
SESSION: Json = {
    "type": "session.update",
    "session": {
        "type": "realtime",
        "audio": {"input": {"turn_detection": {"type": "server_vad", "create_response": False}}},
    },
}


@dataclass(frozen=True, slots=True)
class Plan:
    calls: int = 150
    seconds: float = 15.0
    """For which the CPU time of all calls in silence is counted."""
    utterances: int = 12
    """Spoken by one call alone, and by one among the others."""


@dataclass(slots=True)
class Results:
    append_us: float = 0.0
    server_cores: float = 0.0
    alone_ms: list[float] = field(default_factory=list)
    among_ms: list[float] = field(default_factory=list)
    lateness_ms: list[float] = field(default_factory=list)
    """How long after their time the pieces left."""
    failures: list[str] = field(default_factory=list)


class Line(asyncio.Protocol):
    """One call. What it sends was framed beforehand: this process must not be what is measured."""

    def __init__(self, url: str, key: str) -> None:
        self._protocol = ClientProtocol(parse_uri(url))
        self._key = key
        self._transport: asyncio.Transport | None = None
        self.open = asyncio.Event()
        self.events: list[tuple[float, str]] = []
        self.news = asyncio.Event()
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        request = self._protocol.connect()
        request.headers["Authorization"] = f"Bearer {self._key}"
        self._protocol.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        arrived = time.monotonic()
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self.open.set()
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                self.events.append((arrived, json.loads(event.data)["type"]))
                self.news.set()
        self._flush()  # answers to pings

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.open.set()
        self.news.set()

    def send(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.writelines(self._protocol.data_to_send())

    async def wait_for(self, kind: str, number: int) -> float:
        """When the event `number` (from 1) of this kind came. Raises `TimeoutError`."""
        async with asyncio.timeout(ANSWER_S):
            while True:
                times = [at for at, name in self.events if name == kind]
                if len(times) >= number:
                    return times[number - 1]
                if self.closed:
                    raise TimeoutError("the call was closed")
                self.news.clear()
                await self.news.wait()


class Calls:
    """All calls of a run, each sending a piece every 20 ms: its own, or the next of the noises."""

    def __init__(self, server: Server, *, model: str = "") -> None:
        host = urlsplit(server.url)
        self._address = (str(host.hostname), int(host.port or 80))
        self._url = f"ws://{host.netloc}/v1/realtime" + (f"?model={model}" if model else "")
        self._key = server.api_key
        self._lines: list[tuple[int, Line]] = []
        self._noises = [_append(piece) for piece in _noises()]
        self._speech: dict[Line, list[tuple[bytes, Callable[[float], None] | None]]] = {}
        self.lateness_ms: list[float] = []
        self.sent = 0

    async def dial(self) -> Line:
        loop = asyncio.get_running_loop()
        _, line = await loop.create_connection(lambda: Line(self._url, self._key), *self._address)
        await asyncio.wait_for(line.open.wait(), ANSWER_S)
        line.send(framed(SESSION))
        await line.wait_for("session.updated", 1)
        self._lines.append((len(self._lines) % PHASES, line))
        return line

    def say(self, line: Line, pieces: list[bytes], onset: int, heard: Callable[[float], None]) -> None:
        """Send these instead of noise. `heard` is told when the piece `onset` left."""
        self._speech[line] = [(piece, heard if index == onset else None) for index, piece in enumerate(pieces)][::-1]

    async def run(self) -> None:
        """Send, until cancelled."""
        began, step = time.monotonic() + 0.05, 0
        while True:
            due = began + step * PIECE_S / PHASES
            delay = due - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            elif step % PHASES == 0:
                await asyncio.sleep(0)
            self._send(step % PHASES, step // PHASES)
            self.lateness_ms.append(1000 * (time.monotonic() - due))
            step += 1

    def _send(self, phase: int, turn: int) -> None:
        for number, (own, line) in enumerate(self._lines):
            if own != phase:
                continue
            self.sent += 1
            pieces = self._speech.get(line)
            if not pieces:
                line.send(self._noises[(turn + number) % NOISES])
                continue
            piece, heard = pieces.pop()
            if heard is not None:
                heard(time.monotonic())
            line.send(piece)

    def lost(self) -> int:
        return sum(line.closed for _, line in self._lines)

    def close(self) -> None:
        for _, line in self._lines:
            line.close()


def framed(event: Json) -> bytes:
    """A client's frame, masked as every client has to."""
    text = json.dumps(event, separators=(",", ":")).encode()
    return bytes(Frame(Opcode.TEXT, text).serialize(mask=True, extensions=[]))


def _append(pcm: npt.NDArray[np.int16]) -> bytes:
    return framed({"type": "input_audio_buffer.append", "audio": base64.b64encode(pcm.tobytes()).decode()})


def _noises() -> list[npt.NDArray[np.int16]]:
    noise = np.random.default_rng(1)
    return [noise.normal(0.0, NOISE, PIECE).astype(np.int16) for _ in range(NOISES)]


def _utterances() -> list[tuple[list[bytes], int]]:
    """Frames of each recorded clip with noise around it, and the index of the one in which speech begins."""
    noise, found = np.random.default_rng(2), []
    for shift in (0, 120, 240, 360):
        for voice in speech.voices().values():
            pcm = Resampler(speech.RATE, 24_000).push(voice)
            size = -(-(shift + len(pcm)) // PIECE) * PIECE
            samples = noise.normal(0.0, NOISE, size).astype(np.int16)
            samples[shift : shift + len(pcm)] = pcm
            onset = int(np.flatnonzero(np.abs(samples.astype(np.int32)) >= speech.VOICED)[0]) // PIECE
            pieces = samples.reshape(-1, PIECE)
            found.append(([_append(piece) for piece in pieces], onset))
    return found


async def _speak(calls: Calls, line: Line, utterances: int, measured: list[float], failures: list[str]) -> None:
    """One call speaks; the time from the sending of the first voiced piece to `speech_started`."""
    known = _utterances()
    before = sum(name == "input_audio_buffer.speech_started" for _, name in line.events)
    pauses = random.Random(1)
    for number in range(utterances):
        await asyncio.sleep(PAUSE_S + pauses.uniform(0, PIECE_S))
        onset: list[float] = []
        calls.say(line, *known[number % len(known)], onset.append)
        try:
            started = await line.wait_for("input_audio_buffer.speech_started", before + number + 1)
            await line.wait_for("input_audio_buffer.speech_stopped", before + number + 1)
        except TimeoutError:
            failures.append(f"utterance {number + 1} was not noticed within {ANSWER_S:g} s")
            return
        measured.append(1000 * (started - onset[0]))


async def _run(server: Server, plan: Plan, say: Callable[[str], None]) -> Results:
    results, calls = Results(), Calls(server)
    sending = asyncio.create_task(calls.run())
    try:
        speaker = await calls.dial()
        say("one call alone speaks")
        await asyncio.sleep(WARM_UP_S)
        await _speak(calls, speaker, plan.utterances, results.alone_ms, results.failures)
        say(f"{plan.calls} calls listen")
        for _ in range(plan.calls - 1):
            await calls.dial()
        await asyncio.sleep(WARM_UP_S)
        calls.lateness_ms.clear()
        sent, spent, began = calls.sent, machine.process_seconds(server.pid), time.monotonic()
        await asyncio.sleep(plan.seconds)
        pieces, after = calls.sent - sent, machine.process_seconds(server.pid)
        if spent is not None and after is not None:
            results.append_us = 1e6 * (after - spent) / pieces
            results.server_cores = (after - spent) / (time.monotonic() - began)
        say(f"one of {plan.calls} speaks")
        await _speak(calls, speaker, plan.utterances, results.among_ms, results.failures)
        results.lateness_ms = calls.lateness_ms
        if calls.lost():
            results.failures.append(f"{calls.lost()} calls were closed")
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        calls.close()
        await asyncio.sleep(0.1)
    return results


def _as_json(plan: Plan, results: Results) -> Json:
    alone, among = summary(results.alone_ms), summary(results.among_ms)
    later: Json = {}
    if results.alone_ms and results.among_ms:
        later = {rank: round(among[rank] - alone[rank], 1) for rank in ("p50", "max")}
    return {
        "calls": plan.calls,
        "append_us": round(results.append_us, 1),
        "server_cores": round(results.server_cores, 3),
        "speech_started_ms": {"alone": alone, "among_silent_calls": among},
        "speech_started_later_ms": later,
        "pieces_late_ms": summary(results.lateness_ms),
        "failures": results.failures,
    }


def measure(plan: Plan, say: Callable[[str], None] = lambda _: None) -> Json:
    """Start a server on one core, measure it, stop it."""
    results, circumstances = measured(CONFIG, lambda server: _run(server, plan, say))
    return _as_json(plan, results) | circumstances


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.websocket", description=__doc__.partition("\n")[0])
    usual = Plan()
    parser.add_argument("--calls", type=int, default=usual.calls, help="listening at once (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="of silence (default %(default)s)")
    parser.add_argument("--utterances", type=int, default=usual.utterances, help="default %(default)s")
    report.add_options(parser)
    options = parser.parse_args()
    plan = Plan(options.calls, options.seconds, options.utterances)
    report.finish({"websocket": measure(plan, report.progress(options))}, options)


if __name__ == "__main__":
    main()
