"""How many calls one core carries: this server, stock aiortc beside it, and the limit in C, in one run.

    python -m benchmarks.media [--calls 120] [--seconds 60] [--duplex-calls 56] [--rounds 5] [--write docs/media.md]

Each server is pinned to one core, the callers (`load`) to the others. CPU time is the server's own, so the figures
hold on a machine that is not quiet too; lateness does not. A shared machine's speed drifts from minute to minute, so
the two servers that are compared take turns, each with calls that fill most of the core, and medians are told.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import limit, machine, report
from benchmarks.figures import Json
from benchmarks.server import _is_ready, free_port, serve

CONFIG = "[limits]\ncalls = 2000\ntokens_per_minute = 100000\nloop_lag_ms = 1000\n"
"""The load is given, not admitted: what is measured is what it costs."""
_MARK = "<!-- media -->"


def measure(
    *,
    calls: int,
    seconds: float,
    duplex_calls: int,
    duplex_seconds: float,
    stock_calls: int,
    rounds: int,
    say: Callable[[str], None],
) -> Json:
    cores = machine.available_cores()
    own, others = (cores[:1], cores[1:]) if len(cores) > 1 else ([], [])
    with serve(config=CONFIG, cores=own) as server:
        say(f"{calls} calls in conversation")
        talking = _load(server.url, server.api_key, server.pid, calls, seconds, others, duplex=False)
    ours, theirs = [], []
    with serve(config=CONFIG, cores=own) as server, _stock(own) as (url, pid):
        for each in range(1, rounds + 1):
            say(f"{duplex_calls} calls at full duplex, then {stock_calls} of stock aiortc, {each} of {rounds}")
            ours.append(
                _load(server.url, server.api_key, server.pid, duplex_calls, duplex_seconds, others, duplex=True)
            )
            theirs.append(_load(url, "none", pid, stock_calls, duplex_seconds, others, duplex=True))
    say("the limit in C")
    c = limit.measure()
    both, stock = _median(ours), _median(theirs)
    ratios = sorted(a["ms_per_call_second"] / b["ms_per_call_second"] for a, b in zip(theirs, ours, strict=True))
    result: Json = {"conversation": talking, "duplex": both, "stock_duplex": stock, "limit": c}
    result["ratios_to_stock"] = [round(each, 2) for each in ratios]
    result["ratio_to_stock"] = round(statistics.median(ratios), 2)
    if c is not None:
        result["share_of_limit"] = round(c["ms_per_call_second"] / both["ms_per_call_second"], 2)
    return result


def _median(runs: Sequence[Json]) -> Json:
    """The run that cost the median."""
    return sorted(runs, key=lambda run: float(run["ms_per_call_second"]))[len(runs) // 2]


def _load(url: str, key: str, pid: int, calls: int, seconds: float, cores: Sequence[int], *, duplex: bool) -> Json:
    command = [sys.executable, "-m", "benchmarks.load", url, key, "--pid", str(pid)]
    command += ["--calls", str(calls), "--seconds", str(seconds), *(["--duplex"] if duplex else [])]
    mine = machine.available_cores()
    machine.pin(cores)
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=seconds + calls + 120)
    finally:
        machine.pin(mine)
    found: Json = json.loads(done.stdout)
    return found


@contextmanager
def _stock(cores: Sequence[int]) -> Iterator[tuple[str, int]]:
    port = free_port()
    mine = machine.available_cores()
    machine.pin(cores)
    try:
        process = subprocess.Popen([sys.executable, "-m", "benchmarks.stock", str(port)], env=dict(os.environ))
    finally:
        machine.pin(mine)
    try:
        deadline = time.monotonic() + 30
        while not _is_ready(port):
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError("stock aiortc did not start")
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}", process.pid
    finally:
        process.terminate()
        process.wait(10)


def section(whole: Json) -> str:
    """The results as a Markdown section."""
    about, result = whole["machine"], whole["media"]
    head = "| load | calls | server CPU, ms a call and second | calls a core | lateness p50 / p95 / p99, ms | lost |"
    rows = [head, "| --- | --- | --- | --- | --- | --- |"]
    for key, name in (
        ("conversation", "conversation: caller 40 %, bot 40 %"),
        ("duplex", "full duplex"),
        ("stock_duplex", "full duplex, stock aiortc"),
    ):
        one = result[key]
        late = " / ".join(str(one["lateness_ms"].get(rank, "–")) for rank in ("p50", "p95", "p99"))
        cost = f"{one['ms_per_call_second']} | {one['calls_per_core']}"
        rows.append(f"| {name} | {one['calls']} | {cost} | {late} | {one['packets_missing']} |")
    c = result["limit"]
    if c is not None:
        rows.append(f"| libopus and libsrtp in C | – | {c['ms_per_call_second']} | {c['calls_per_core']} | – | – |")
    least, most = min(result["ratios_to_stock"]), max(result["ratios_to_stock"])
    share = f", {result['share_of_limit']:.0%} of what C reaches" if "share_of_limit" in result else ""
    others = whole["others_cores"]
    verdict = "" if others is None or others <= machine.QUIET_CORES else ": **not quiet, these figures do not count**"
    return "\n".join(
        [
            _MARK,
            f"{about['date']}, {about['cpu']}, {about['cores']} cores, Python {about['python']}, aiortc "
            f"{about['aiortc']}; other processes took {others} cores meanwhile{verdict}.",
            "",
            *rows,
            "",
            f"At full duplex one core carries {result['ratio_to_stock']} times what stock aiortc does{share}.",
            f"That is the median of turns that the two took; they gave {least} to {most}.",
            _MARK,
        ]
    )


def write(whole: Json, page: Path) -> None:
    """Put the section into the page, in place of the one before. Raises `ValueError` when there is no place."""
    parts = page.read_text().split(_MARK)
    if len(parts) != 3:
        raise ValueError(f"{page} has no section between two {_MARK}")
    page.write_text(f"{parts[0]}{section(whole)}{parts[2]}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.media", description=__doc__)
    parser.add_argument("--calls", type=int, default=120)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--duplex-calls", type=int, default=56)
    parser.add_argument("--duplex-seconds", type=float, default=20)
    parser.add_argument("--stock-calls", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--write", type=Path, metavar="FILE")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    neighbours = machine.Neighbours()
    result = measure(
        calls=options.calls,
        seconds=options.seconds,
        duplex_calls=options.duplex_calls,
        duplex_seconds=options.duplex_seconds,
        stock_calls=options.stock_calls,
        rounds=options.rounds,
        say=report.progress(options),
    )
    whole = {"machine": machine.describe(), "others_cores": neighbours.cores(), "media": result}
    print(json.dumps(whole, indent=2))
    print(section(whole), file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(whole, indent=2) + "\n")
    if options.write:
        write(whole, options.write)


if __name__ == "__main__":
    main()
