"""Telephone calls over a carrier's socket: how many one core carries, how late answers come, how soon they are flushed.

    python -m benchmarks.telephony [--calls 200] [--seconds 60] [--json FILE] [--write docs/performance.md]

The carrier is Twilio as its protocol has it: a signed webhook and a signed socket for each call, 20 ms of mu-law in
JSON fifty times a second, a queue that is played in real time, marks that come back when they were played or flushed.
The load is a conversation: the caller speaks 40 % of the time, the bot answers 5 s (the other 40 %), and one turn in
five talks over the answer. Between utterances the line hums, as lines do.

A message of the answer is late by how long it came after the earliest paced one of its answer, less the audio between
them: by how much the server missed its own steady pace. What is sent at once when an answer begins is ahead of its
time and does not count. What the listener has of it is `left_ms`, how much the carrier still had to play when a paced
message came: nothing is audible before that is used up, and `queue_ran_dry` counts when it was.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import hmac
import json
import os
import random
import re
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

import httpx2
import numpy as np
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from benchmarks import machine, report, speech
from benchmarks.apart import measured
from benchmarks.figures import Json, percentile, summary
from benchmarks.server import Server
from media.g711 import ulaw_encode
from media.resample import Resampler

FRAME_S = 0.02
FRAME = 160
"""Bytes of 20 ms."""
PHASES = 20
"""The calls are spread over the milliseconds of a frame."""
ANSWER_S = 5.0
SPOKEN_S = 5.0
SILENCE_S = 0.5
"""What the server waits for after speech, by default."""
PAUSE_S = 2.0
TURN_S = SPOKEN_S + SILENCE_S + ANSWER_S + PAUSE_S
TALKS_OVER = 0.2
TALKS_OVER_S = (0.5, 4.5)
"""Into the answer."""
PATIENCE_S = 5.0
"""Without an answer by then the turn has failed."""
AT_ONCE_S = 0.1
HUM = 12.0
"""Standard deviation of the line's noise, about -69 dBFS."""
HUMS = 32
PATH = "/v1/ai/realtime/telephony/twilio"
SECRET = "BENCHMARK_CARRIER_SECRET"
"""The variable that holds what the carrier signs with."""
CONFIG = f'[limits]\ncalls = 4000\nloop_lag_ms = 10_000\n[telephony.twilio]\nsecret = "env:{SECRET}"\n'

_END = '"}}'


@dataclass(frozen=True, slots=True)
class Plan:
    calls: int = 200
    seconds: float = 60.0
    warm_up: float = 15.0
    """Seconds of the same load that are not measured."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """Base64 frames; `onset`: the one in which speech begins, `last`: in which it ends."""

    frames: Sequence[str]
    onset: int
    last: int


@dataclass(slots=True)
class Results:
    flush_ms: list[float] = field(default_factory=list)
    lateness_ms: list[float] = field(default_factory=list)
    answer_ms: list[float] = field(default_factory=list)
    """From the end of speech to the first audio, less the silence that is waited for."""
    left_ms: list[float] = field(default_factory=list)
    """What the carrier still had to play when a paced message came."""
    own_lateness_ms: list[float] = field(default_factory=list)
    heard_s: float = 0.0
    spoken_s: float = 0.0
    dry: int = 0
    """Times that the carrier's queue ran empty within an answer."""
    failures: list[str] = field(default_factory=list)


class Line(asyncio.Protocol):
    """One call, from the carrier's side."""

    def __init__(self, url: str, signature: str, token: str, chance: random.Random, results: Results) -> None:
        self._protocol = ClientProtocol(parse_uri(url), max_size=None)
        self._signature, self._token = signature, token
        self._chance, self._results = chance, results
        self._transport: asyncio.Transport | None = None
        self._stream = f"MZ{secrets.token_hex(16)}"
        self.call_sid = ""
        self.open = asyncio.Event()
        self.closed = False
        self.measuring = False
        self._chunk = 0
        self._prefix = ""
        self._speech: Utterance | None = None
        self._position = 0
        self._speaks_at = float("inf")
        self._asked_at: float | None = None
        """When speech ended that has no answer yet."""
        self._onset_at: float | None = None
        """When speech over the answer began."""
        self._empty_at = 0.0
        """When what is in the queue will have been played."""
        self._marks: deque[tuple[float, str]] = deque()
        self._answer_at: float | None = None
        self._audio_s = 0.0
        self._paced: list[float] = []

    # --- the wire -----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass
        request = self._protocol.connect()
        request.headers["X-Twilio-Signature"] = self._signature
        self._protocol.send_request(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self.open.set()
            elif isinstance(event, Frame) and event.opcode is Opcode.TEXT:
                self._take(json.loads(event.data), now)
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self.open.set()

    def _flush(self) -> None:
        if self._transport is not None:
            self._transport.writelines(self._protocol.data_to_send())

    def _send(self, text: str) -> None:
        """A client's frame whose masking key is zero: legal, and the cheapest."""
        data = text.encode()
        size = bytes((0x80 | len(data),)) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
        if self._transport is not None:
            self._transport.write(b"\x81" + size + b"\0\0\0\0" + data)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # --- the caller ---------------------------------------------------------------------------

    def start(self, call_sid: str) -> None:
        self.call_sid = call_sid
        form = {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1}
        start = {"streamSid": self._stream, "callSid": call_sid, "accountSid": "AC1", "tracks": ["inbound"]}
        start |= {"mediaFormat": form, "customParameters": {"realtime_token": self._token}}
        self._send(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        self._send(json.dumps({"event": "start", "sequenceNumber": "1", "start": start, "streamSid": self._stream}))
        self._speaks_at = time.monotonic() + self._chance.uniform(0, TURN_S)

    def frame(self, now: float, utterances: Sequence[Utterance], hum: str) -> None:
        """The next 20 ms."""
        if self._speech is None and now >= self._speaks_at:
            self._begin(now, utterances)
        payload = hum if self._speech is None else self._say(self._speech, now)
        self._chunk += 1
        chunk = self._chunk
        self._send(
            f'{{"event":"media","sequenceNumber":"{chunk + 1}","streamSid":"{self._stream}","media":{{'
            f'"track":"inbound","chunk":"{chunk}","timestamp":"{(chunk - 1) * 20}","payload":"{payload}{_END}'
        )
        while self._marks and self._marks[0][0] <= now:
            self._mark(self._marks.popleft()[1])

    def _begin(self, now: float, utterances: Sequence[Utterance]) -> None:
        if self._asked_at is not None:
            self._fail(f"no answer within {now - self._asked_at:.1f} s")
            self._asked_at = None
        self._speech, self._position = self._chance.choice(utterances), 0
        self._speaks_at = float("inf")

    def _say(self, spoken: Utterance, now: float) -> str:
        position = self._position
        self._position += 1
        if self.measuring:
            self._results.spoken_s += FRAME_S
        if position == spoken.onset and self._empty_at > now:
            self._onset_at = now
        if position == spoken.last:
            self._asked_at = now
            self._speaks_at = now + PATIENCE_S
        if self._position == len(spoken.frames):
            self._speech = None
        return spoken.frames[position]

    # --- the carrier's queue ------------------------------------------------------------------

    def _take(self, message: Json, now: float) -> None:
        match message["event"]:
            case "media":
                self._hear(len(message["media"]["payload"]) * 3 / 4 / 8000, now)
            case "mark":
                self._marks.append((self._empty_at, message["mark"]["name"]))
            case "clear":
                self._cleared(now)

    def _hear(self, seconds: float, now: float) -> None:
        if self._empty_at <= now:
            if self._asked_at is None and self._answer_at is not None and self._audio_s < ANSWER_S - 0.1:
                self._results.dry += self.measuring
            else:
                self._answered(now)
        late = now - self._audio_s
        if self._answer_at is not None and now > self._answer_at + AT_ONCE_S:
            self._paced.append(late)
            if self.measuring:
                self._results.left_ms.append(1000 * max(0.0, self._empty_at - now))
        self._audio_s += seconds
        if self.measuring:
            self._results.heard_s += seconds
        self._empty_at = max(self._empty_at, now) + seconds

    def _answered(self, now: float) -> None:
        self._settle()
        if self._asked_at is not None and self.measuring:
            self._results.answer_ms.append(1000 * (now - self._asked_at - SILENCE_S))
        self._asked_at = None
        self._answer_at, self._audio_s = now, 0.0
        talks_over = self._chance.random() < TALKS_OVER
        self._speaks_at = now + (self._chance.uniform(*TALKS_OVER_S) if talks_over else ANSWER_S + PAUSE_S)

    def _cleared(self, now: float) -> None:
        if self._onset_at is None:
            self._fail("an answer was flushed that nobody talked over")
        elif self.measuring:
            self._results.flush_ms.append(1000 * (now - self._onset_at))
        self._onset_at = None
        self._settle()
        self._answer_at = None
        self._empty_at = now
        while self._marks:
            self._mark(self._marks.popleft()[1])

    def _settle(self) -> None:
        """The answer is over: how late its messages were."""
        if self._onset_at is not None:
            self._fail("an answer that was talked over was not flushed")
            self._onset_at = None
        if self._paced and self.measuring:
            earliest = min(self._paced)
            self._results.lateness_ms += [1000 * (each - earliest) for each in self._paced]
        self._paced = []

    def _mark(self, name: str) -> None:
        self._send(json.dumps({"event": "mark", "streamSid": self._stream, "mark": {"name": name}}))

    def _fail(self, why: str) -> None:
        if self.measuring:
            self._results.failures.append(why)


class Carrier:
    """All calls of a run."""

    def __init__(self, server: Server, secret: str, results: Results) -> None:
        self._server = server
        self._secret = secret
        self._results = results
        self._lines: list[list[Line]] = [[] for _ in range(PHASES)]
        self._utterances = _utterances()
        self._hums = _hums()
        self.count = 0

    @property
    def lines(self) -> list[Line]:
        return [line for lines in self._lines for line in lines]

    async def dial(self, client: httpx2.AsyncClient) -> None:
        call_sid = f"CA{secrets.token_hex(16)}"
        form = {"CallSid": call_sid, "From": "+15550001111", "To": "+15552223333", "AccountSid": "AC1"}
        url = f"{self._server.url}{PATH}/answer"
        headers = {"X-Twilio-Signature": self._signed(url, form), "Content-Type": "application/x-www-form-urlencoded"}
        document = (await client.post(url, content=urlencode(form), headers=headers)).text
        found = re.search(r'<Stream url="([^"]+)".*value="([^"]+)"', document)
        if found is None:
            raise RuntimeError(f"the webhook was answered: {document[:300]}")
        socket_url, host = found[1], urlsplit(found[1])
        line = Line(socket_url, self._signed(socket_url, {}), found[2], random.Random(self.count), self._results)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: line, str(host.hostname), int(host.port or 80))
        await asyncio.wait_for(line.open.wait(), PATIENCE_S)
        line.start(call_sid)
        self._lines[self.count % PHASES].append(line)
        self.count += 1

    def _signed(self, url: str, form: dict[str, str]) -> str:
        text = url + "".join(f"{name}{value}" for name, value in sorted(form.items()))
        return base64.b64encode(hmac.new(self._secret.encode(), text.encode(), hashlib.sha1).digest()).decode()

    async def run(self) -> None:
        """Send, until cancelled."""
        began, step = time.monotonic() + 0.05, 0
        while True:
            due = began + step * FRAME_S / PHASES
            delay = due - time.monotonic()
            if delay > 0:
                await asyncio.sleep(delay)
            elif step % PHASES == 0:
                await asyncio.sleep(0)
            now = time.monotonic()
            hum = self._hums[step % HUMS]
            for line in self._lines[step % PHASES]:
                line.frame(now, self._utterances, hum)
            self._results.own_lateness_ms.append(1000 * (now - due))
            step += 1


def _utterances() -> list[Utterance]:
    """Both clips, one after the other, in several alignments to the 20 ms grid, with the line's noise under them."""
    noise, found = np.random.default_rng(2), []
    voices = [Resampler(speech.RATE, 8_000).push(voice) for voice in speech.voices().values()]
    for order in (voices, voices[::-1]):
        voice = np.concatenate(order)
        for shift in (0, 40, 80, 120):
            samples = noise.normal(0.0, HUM, -(-(shift + len(voice)) // FRAME) * FRAME).astype(np.int16)
            samples[shift : shift + len(voice)] = voice
            voiced = np.flatnonzero(np.abs(samples.astype(np.int32)) >= speech.VOICED)
            frames = [_base64(samples[start : start + FRAME]) for start in range(0, len(samples), FRAME)]
            found.append(Utterance(frames, int(voiced[0]) // FRAME, int(voiced[-1]) // FRAME))
    return found


def _hums() -> list[str]:
    noise = np.random.default_rng(1)
    return [_base64(noise.normal(0.0, HUM, FRAME).astype(np.int16)) for _ in range(HUMS)]


def _base64(pcm: Any) -> str:
    return base64.b64encode(ulaw_encode(pcm)).decode()


async def _run(server: Server, plan: Plan, secret: str, say: Callable[[str], None]) -> Json:
    results = Results()
    carrier = Carrier(server, secret, results)
    sending = asyncio.create_task(carrier.run())
    try:
        say(f"{plan.calls} calls dial")
        async with httpx2.AsyncClient(timeout=PATIENCE_S) as client:
            for _ in range(plan.calls):
                await carrier.dial(client)
        await asyncio.sleep(plan.warm_up)
        say(f"measuring for {plan.seconds:g} s")
        for line in carrier.lines:
            line.measuring = True
        results.own_lateness_ms.clear()
        spent, own, began = machine.process_seconds(server.pid), time.process_time(), time.monotonic()
        await asyncio.sleep(plan.seconds)
        elapsed = time.monotonic() - began
        after, mine = machine.process_seconds(server.pid), time.process_time() - own
        for line in carrier.lines:
            line.measuring = False
        lost = sum(line.closed for line in carrier.lines)
        if lost:
            results.failures.append(f"{lost} calls were closed")
    finally:
        sending.cancel()
        with suppress(asyncio.CancelledError):
            await sending
        for line in carrier.lines:
            line.close()
        await asyncio.sleep(0.2)
    cores = None if spent is None or after is None else (after - spent) / elapsed
    return _as_json(plan, results, elapsed, cores, mine / elapsed)


def _as_json(plan: Plan, results: Results, elapsed: float, cores: float | None, own_cores: float) -> Json:
    found: Json = {"calls": plan.calls, "seconds": round(elapsed, 1), "generator_cores": round(own_cores, 3)}
    if cores:
        found |= {
            "server_cores": round(cores, 3),
            "ms_per_call_second": round(1000 * cores / plan.calls, 2),
            "calls_per_core": round(plan.calls / cores, 1),
        }
    if results.lateness_ms:
        found["lateness_p99_ms"] = round(percentile(results.lateness_ms, 99), 1)
    return found | {
        "callers_speak": round(results.spoken_s / elapsed / plan.calls, 2),
        "bot_speaks": round(results.heard_s / elapsed / plan.calls, 2),
        "lateness_ms": summary(results.lateness_ms),
        "left_ms": summary(results.left_ms),
        "flush_ms": summary(results.flush_ms),
        "answer_ms": summary(results.answer_ms),
        "generator_late_ms": summary(results.own_lateness_ms),
        "queue_ran_dry": results.dry,
        "failures": results.failures,
    }


def measure(plan: Plan, say: Callable[[str], None] = lambda _: None) -> Json:
    """Start a server on one core, measure it from another, stop it."""
    secret = os.environ[SECRET] = secrets.token_urlsafe(24)
    found, circumstances = measured(CONFIG, lambda server: _run(server, plan, secret, say))
    return found | circumstances


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.telephony", description=__doc__.partition("\n")[0])
    usual = Plan()
    parser.add_argument("--calls", type=int, default=usual.calls, help="at once (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="measured (default %(default)s)")
    parser.add_argument("--warm-up", type=float, default=usual.warm_up, help="before it (default %(default)s)")
    report.add_options(parser)
    options = parser.parse_args()
    plan = Plan(options.calls, options.seconds, options.warm_up)
    report.finish({"telephony": measure(plan, report.progress(options))}, options, part="telephony")


if __name__ == "__main__":
    main()
