"""What a greeting costs a call: made and encoded for it alone, and kept from the call before.

    python -m benchmarks.greetings [--calls 30] [--write docs/media.md]

The embedded voice says it, in its own process; the playout's frames go through encoder, header and statistics, as in
a WebRTC call, or leave as Twilio's messages, mu-law in base64, on a clock that does not wait. SRTP, `sendto` and the
socket come on top either way.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks import machine
from benchmarks.section import put, table
from media.outbound import Outbound
from media.pacer import Pacer
from media.playout import Playout
from realtime.adapters.base import SpeechRequest, TextToSpeech
from realtime.adapters.catalogue import Catalogue
from realtime.settings import AgentSettings, load
from signaling.telephony.carrier import Started
from signaling.telephony.leg import CarrierLeg
from signaling.telephony.twilio import TwilioStream

FRAME_S = 0.02
POLL_S = 0.04
GREETING = "Good morning, you have reached the front desk. How may I help you?"


def _voice_seconds() -> float:
    """CPU that the engines' processes have taken."""
    children = Path("/proc/self/task").glob("*/children")
    return sum(machine.process_seconds(int(pid)) or 0.0 for file in children for pid in file.read_text().split())


async def _greet(voice: TextToSpeech, playout: Playout, generation: int, shared: bool) -> None:
    async with voice.stream(SpeechRequest(GREETING, shared=shared)) as chunks:
        async for chunk in chunks:
            playout.push(generation, chunk.pcm, chunk.source)
    playout.finish(generation)


class _WebRtc:
    def __init__(self) -> None:
        self.playout = Playout()
        self._line = Outbound(
            playout=self.playout,
            payload_type=111,
            ssrc=1,
            cname="c",
            send=lambda packet: True,
            on_event=lambda event: None,
        )

    async def send(self) -> None:
        now = 0.0
        while self.playout.speaking is not None:
            self._line.run(now)
            now += FRAME_S


class _Twilio:
    def __init__(self) -> None:
        self._now = 0.0
        stream = TwilioStream()
        [started] = stream.decode('{"event":"start","start":{"streamSid":"MZ1","callSid":"CA1"}}')
        assert isinstance(started, Started)
        self._leg = CarrierLeg(stream, started, Pacer(), clock=lambda: self._now)
        self.playout = self._leg.playout

    async def send(self) -> None:
        while self.playout.speaking is not None:
            self._leg.on_poll(self._now)
            self._now += POLL_S
        # In a call the socket takes them as they come; the greeting fits into what may wait.
        await self._leg.close()


async def measure(
    voice: TextToSpeech, wire: Callable[[], _WebRtc | _Twilio], calls: int, shared: bool
) -> tuple[float, float, float]:
    """CPU of a call's greeting: to send it, and the voice's, both in ms; and seconds of sound."""
    speech = sending = sound = 0.0
    before = _voice_seconds()
    for _ in range(calls):
        call = wire()
        began = time.process_time()
        await _greet(voice, call.playout, 1, shared)
        made = time.process_time()
        sound = call.playout.buffered_ms / 1000
        await call.send()
        speech += made - began
        sending += time.process_time() - made
    engine = _voice_seconds() - before
    return sending / calls * 1000, (speech + engine) / calls * 1000, sound


async def compare(calls: int) -> str:
    with tempfile.TemporaryDirectory() as folder:
        toml = Path(folder) / "realtime.toml"
        toml.write_text('[live]\nstt = "instant"\nchat = "instant"\n')
        catalogue = Catalogue(load(toml, {"REALTIME_DATA": folder}))
        await catalogue.start()
        try:
            voice = catalogue.engines(AgentSettings()).tts
            rows, sound = [], 0.0
            for name, shared in (("for each call", False), ("kept", True)):
                for wire in (_WebRtc, _Twilio):  # warm, and the first of the calls that find it kept
                    await measure(voice, wire, 2, shared)
                packets, speech, sound = await measure(voice, _WebRtc, calls, shared)
                messages, _, _ = await measure(voice, _Twilio, calls, shared)
                each = packets / (sound * 50) * 1000
                rows.append((name, f"{speech:.2f}", f"{packets:.2f}", f"{each:.1f}", f"{messages:.2f}"))
        finally:
            await catalogue.close()
    head = (
        "made and encoded",
        "voice, ms",
        "WebRTC: playout, encoder, header, ms",
        "the same, µs a packet",
        "a carrier's socket: playout, G.711, messages, ms",
    )
    about = f"CPU of one greeting of {sound:.1f} s by the embedded voice, `python -m benchmarks.greetings`:"
    return f"{about}\n\n{table(head, rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.greetings", description=__doc__.partition("\n")[0])
    parser.add_argument("--calls", type=int, default=30, help="default %(default)s")
    parser.add_argument("--write", type=Path, help="put the table into this page, between its marks")
    options = parser.parse_args()
    text = asyncio.run(compare(options.calls))
    print(text)
    if options.write is not None:
        put(options.write, "greetings", text)


if __name__ == "__main__":
    main()
