"""What recording a call costs: on the event loop of the server, and in the process that writes.

    python -m benchmarks.recording [--seconds 120]

CPU time of one core for each second of a call in which both sides speak in turn, as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time

import numpy as np

from benchmarks import machine
from media.audio import FRAME_IN, FRAME_OUT, RATE_IN, RATE_OUT, Pcm
from realtime.recording.tracks import Tracks
from realtime.recording.writer import Recording, pack


class _Out:
    """Nobody listens."""

    cancelled = False

    def item(self, head: object, body: bytes = b"") -> None: ...

    def taken(self, count: int) -> None: ...

    def end(self) -> None: ...


def measure(seconds: int) -> dict[str, object]:
    blocks, loop_s, longest_s = _on_the_loop(seconds)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "call.ogg")
        recording = Recording(path, 0, _Out())  # type: ignore[arg-type]
        began = time.process_time()
        for block in blocks:
            recording.data(block)
            recording.step()
        recording.finish()
        recording.step()
        writer_s = time.process_time() - began
        size = os.path.getsize(path)
    return {
        "seconds": seconds,
        "loop_ms_per_call_second": round(1000 * loop_s / seconds, 3),
        "loop_longest_ms": round(1000 * longest_s, 3),
        "writer_ms_per_call_second": round(1000 * writer_s / seconds, 2),
        "bytes_per_second": round(size / seconds),
    }


def _on_the_loop(seconds: int) -> tuple[list[bytes], float, float]:
    """The blocks of a call, the CPU time they took, and the longest moment of it."""
    tracks, blocks, longest = Tracks(0.0), [], 0.0
    caller, bot = _voice(RATE_IN), _voice(RATE_OUT)
    began = time.process_time()
    for number in range(seconds * 50):
        now, speaks = number * 0.02, (number // 150) % 2
        at = number % 50
        tracks.caller(caller[at * FRAME_IN : (at + 1) * FRAME_IN] * (1 - speaks), now + 0.02)
        if speaks:
            tracks.bot(bot[at * FRAME_OUT : (at + 1) * FRAME_OUT], now)
        if number % 25 == 0:
            since = time.perf_counter()
            blocks += [pack(block) for block in tracks.take(now)]
            longest = max(longest, time.perf_counter() - since)
    return blocks, time.process_time() - began, longest


def _voice(rate: int) -> Pcm:
    """A second of something with harmonics that comes and goes."""
    at = np.arange(rate) / rate
    tone = sum(np.sin(2 * np.pi * 140 * k * at) / k for k in range(1, 20))
    return np.asarray(6000 * tone * np.abs(np.sin(2 * np.pi * 3 * at)), np.int16)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recording", description=__doc__)
    parser.add_argument("--seconds", type=int, default=120)
    options = parser.parse_args()
    print(json.dumps({"machine": machine.describe(), "recording": measure(options.seconds)}, indent=2))


if __name__ == "__main__":
    main()
