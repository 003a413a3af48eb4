"""What a greeting costs a call: made and encoded for it alone, and kept from the call before.

    python -m benchmarks.greetings [--calls 30] [--write docs/media.md]

The embedded voice says it, in its own process; the playout's frames go through encoder, header and statistics, as in
a call, on a clock that does not wait. SRTP and `sendto` come on top either way.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.section import put, table
from media.outbound import Outbound
from media.playout import Playout
from realtime.adapters.base import SpeechRequest, TextToSpeech
from realtime.adapters.catalogue import Catalogue
from realtime.settings import AgentSettings, load

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


async def measure(voice: TextToSpeech, calls: int, shared: bool) -> tuple[float, float, float]:
    """CPU of a call's greeting: the server's, the voice's, both in ms; and seconds of sound."""
    speech = encoding = sound = 0.0
    before = _voice_seconds()
    for _ in range(calls):
        playout = Playout()
        line = Outbound(
            playout=playout, payload_type=111, ssrc=1, cname="c", send=lambda packet: True, on_event=lambda event: None
        )
        began = time.process_time()
        await _greet(voice, playout, 1, shared)
        made = time.process_time()
        now, sound = 0.0, playout.buffered_ms / 1000
        while playout.speaking is not None:
            line.run(now)
            now += 0.02
        speech += made - began
        encoding += time.process_time() - made
    engine = _voice_seconds() - before
    return encoding / calls * 1000, (speech + engine) / calls * 1000, sound


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
                await measure(voice, 2, shared)  # warm, and the first of the calls that find it kept
                encoding, speech, sound = await measure(voice, calls, shared)
                rows.append((name, f"{speech:.2f}", f"{encoding:.2f}", f"{encoding / (sound * 50) * 1000:.1f}"))
        finally:
            await catalogue.close()
    head = ("made and encoded", "voice, ms", "playout, encoder, header, ms", "the same, µs a packet")
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
