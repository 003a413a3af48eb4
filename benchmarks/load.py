"""A load of recorded speech on one server, and what it cost: `realtime.load` with figures.

python -m benchmarks.load URL KEY --calls 75 --seconds 60 [--duplex] --pid SERVER     -> JSON on stdout
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time

from benchmarks import machine, speech
from benchmarks.figures import Json, percentile
from realtime.load import FRAME_S, SPOKEN_S, TURN_S, Load


def result(load: Load) -> Json:
    late, calls = load.lateness_s, load.calls
    return {
        "calls": len(calls),
        "refused": load.refused,
        "packets_sent": sum(call.sent for call in calls),
        "packets_received": sum(call.received for call in calls),
        "packets_missing": sum(call.lost for call in calls),
        "answers": sum(call.answers for call in calls),
        "lateness_ms": {f"p{rank}": round(percentile(late, rank) * 1000, 2) for rank in (50, 95, 99)} if late else {},
        "own_lateness_ms_p99": round(percentile(load.own_lateness_s, 99) * 1000, 2),
    }


def utterances() -> list[list[bytes]]:
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
    load = Load(url, key, utterances(), speech.silence(), duplex=duplex)
    try:
        await load.open(calls)
        await load.run(2.0 if duplex else TURN_S)
        load.measure()
        began = machine.process_seconds(pid), time.process_time(), time.monotonic()
        await load.run(seconds)
        ended = machine.process_seconds(pid), time.process_time(), time.monotonic()
        found = result(load)
    finally:
        await load.close()
    assert began[0] is not None
    assert ended[0] is not None
    server, own, elapsed = (after - before for before, after in zip(began, ended, strict=True))  # type: ignore[operator]
    per_call = server / elapsed / max(1, found["calls"]) * 1000
    return found | {
        "seconds": round(elapsed, 1),
        "server_cores": round(server / elapsed, 3),
        "generator_cores": round(own / elapsed, 3),
        "ms_per_call_second": round(per_call, 2),
        "calls_per_core": round(1000 / per_call, 1),
        "bot_sounds": round(found["packets_received"] * FRAME_S / elapsed / max(1, found["calls"]), 2),
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
