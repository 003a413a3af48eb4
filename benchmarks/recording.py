"""What recording a call costs: on the event loop of the server, and in the process that writes.

    python -m benchmarks.recording [--seconds 120] [--calls 60] [--held 20] [--json FILE]

First one call in this process: CPU time of one core for each second of a call in which both sides speak in turn.
Then many calls at once over WebSockets against a server: for `--held` seconds each appends 20 ms of a quiet room
fifty times a second and is told an answer of five seconds every six, first none recorded, then all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import machine, report
from benchmarks.apart import new_loop
from benchmarks.figures import Json
from benchmarks.server import Server, serve
from benchmarks.websocket import CONFIG, Calls, Line, framed
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


ASK = framed(
    {
        "type": "conversation.item.create",
        "item": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hello."}]},
    }
) + framed({"type": "response.create"})
ASK_EVERY_S = 6.0
SETTLE_S = 3.0
LOOK_S = 1.0
PROBE = Path(__file__).with_name("recording_probe.py")


def many_at_once(calls: int, seconds: float, say: Callable[[str], None]) -> Json:
    """Two fresh servers, one after the other, under the same load."""
    results: Json = {"calls": calls, "seconds": seconds}
    for agent in ("plain", "recorded"):
        say(f"{calls} calls, {agent}")
        with tempfile.TemporaryDirectory() as folder:
            notes = Path(folder) / "notes"
            bot = Path(shutil.copy(PROBE, folder))  # the modules beside it would be found before the product's
            with serve(config=CONFIG, bot=bot, environ={"PROBE_NOTES": str(notes)}) as server:
                with machine.undisturbed(), asyncio.Runner(loop_factory=new_loop) as runner:
                    figures = runner.run(_hold(server, agent, calls, seconds))
                if agent == "recorded":
                    time.sleep(LOOK_S)
                    figures["steps_of_recordings"] = {
                        name: round(value, 3) for name, value in json.loads(notes.read_text()).items()
                    }
            results[agent] = figures
    more = {}
    for name in ("server_ms_per_call_second", "writer_ms_per_call_second", "memory_kb_per_call"):
        more[name] = round(results["recorded"][name] - results["plain"][name], 2)
    return results | {"recording_takes_more": more}


async def _hold(server: Server, agent: str, count: int, seconds: float) -> Json:
    calls = Calls(server, model=agent)
    lags: list[float] = []
    sending = asyncio.create_task(calls.run())
    empty_kb = _memory_kb(server.pid)
    try:
        lines = [await calls.dial() for _ in range(count)]
        asking = asyncio.create_task(_ask(lines))
        await asyncio.sleep(SETTLE_S)
        writers = _writers(server.pid)
        neighbours = machine.Neighbours(server.pid, *writers)
        began, spent, written = time.monotonic(), _cpu_s(server.pid), sum(map(_cpu_s, writers))
        while time.monotonic() < began + seconds:
            await asyncio.sleep(LOOK_S)
            lags.append(await asyncio.to_thread(_lag_ms, server))
        held = (time.monotonic() - began) * count / 1000
        figures: Json = {
            "server_ms_per_call_second": round((_cpu_s(server.pid) - spent) / held, 2),
            "writer_ms_per_call_second": round((sum(map(_cpu_s, writers)) - written) / held, 2),
            "memory_kb_per_call": round((_memory_kb(server.pid) - empty_kb) / count),
            "loop_lag_p99_ms": {"median": round(float(np.median(lags)), 2), "max": max(lags)},
            "answers": sum(kind == "response.done" for line in lines for _, kind in line.events),
            "calls_lost": calls.lost(),
            "other_processes_cores": neighbours.cores(),
        }
        asking.cancel()
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        calls.close()
    return figures


async def _ask(lines: list[Line]) -> None:
    """Every call in its turn, spread over the time between two of its own."""
    while True:
        for line in lines:
            line.send(ASK)
            await asyncio.sleep(ASK_EVERY_S / len(lines))


def _lag_ms(server: Server) -> float:
    with urllib.request.urlopen(f"{server.url}/v1/ai/status", timeout=5) as response:
        return float(json.load(response)["load"]["loop_lag_ms"])


def _cpu_s(pid: int) -> float:
    return machine.process_seconds(pid) or 0.0


def _memory_kb(pid: int) -> int:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0])


def _writers(pid: int) -> list[int]:
    """The server's processes that write recordings."""
    children = [
        int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in file.read_text().split()
    ]
    return [child for child in children if b"recording" in Path(f"/proc/{child}/cmdline").read_bytes()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recording", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=120, help="of the one call (default %(default)s)")
    parser.add_argument("--calls", type=int, default=60, help="at once; 0 leaves them out (default %(default)s)")
    parser.add_argument("--held", type=float, default=20.0, help="seconds that they last (default %(default)s)")
    report.add_options(parser)
    options = parser.parse_args()
    results: Json = {"recording": measure(options.seconds)}
    if options.calls:
        results["recorded_calls"] = many_at_once(options.calls, options.held, report.progress(options))
    report.finish(results, options)


if __name__ == "__main__":
    main()
