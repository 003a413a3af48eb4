"""What a benchmark hands out: JSON always, a page when asked, and whether the targets were met.

The page is written from the results and from nothing else; figures of other products stand beside
ours as they were published, with the conditions they were taken under.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine, section
from benchmarks.figures import Json


@dataclass(frozen=True, slots=True)
class Target:
    """`path`: where the figure stands in the results. Met when it is at most `limit`."""

    name: str
    path: tuple[str, ...]
    limit: float
    unit: str
    peer: str = ""


CLASS_NAMES = {
    "first_second": "in an answer's first second",
    "middle": "in its middle",
    "last_300_ms": "in its last 300 ms",
}
MAX_SHOWN = 5
"""Failures the page spells out; the JSON has all."""
_LATENCY = ("latency",)
_BARGE_IN_PEERS = "Pipecat 480 ms; LiveKit Agents 564–594 ms; FastRTC 1830 ms"
TARGETS = (
    Target(
        "voice to voice over the configured silence, median",
        (*_LATENCY, "voice_to_voice_over_silence_ms", "p50"),
        100,
        "ms",
        "Pipecat 201–252 ms; FastRTC 900 ms",
    ),
    Target("barge-in, median", (*_LATENCY, "barge_in_ms", "all", "p50"), 200, "ms", _BARGE_IN_PEERS),
    Target("barge-in, p95", (*_LATENCY, "barge_in_ms", "all", "p95"), 300, "ms", "Pipecat 481–520 ms (p90)"),
    *(
        Target(f"barge-in {name}, {rank}", (*_LATENCY, "barge_in_ms", kind, key), limit, "ms")
        for kind, name in CLASS_NAMES.items()
        for rank, key, limit in (("median", "p50", 200), ("p95", "p95", 300))
    ),
    Target(
        "offer to connected, median",
        (*_LATENCY, "set_up_ms", "offer_to_connected", "p50"),
        100,
        "ms",
        "Pipecat 105 ms; FastRTC 160–200 ms",
    ),
    Target(
        "offer to first packet of a greeting, median",
        (*_LATENCY, "set_up_ms", "offer_to_greeting", "p50"),
        120,
        "ms",
        "Pipecat 130 ms",
    ),
    Target("20 ms appended over a WebSocket, server CPU", ("websocket", "append_us"), 65, "µs"),
    Target(
        "`speech_started` among silent calls, later than alone, median",
        ("websocket", "speech_started_later_ms", "p50"),
        100,
        "ms",
    ),
    Target("a telephone call over a carrier's socket, CPU a second", ("telephony", "ms_per_call_second"), 5, "ms"),
    Target("answers on carriers' sockets, lateness, p99", ("telephony", "lateness_p99_ms"), 20, "ms"),
    Target("barge-in to the flush on a carrier's socket, p95", ("telephony", "flush_ms", "p95"), 300, "ms"),
    Target("one-shot chat, added to the vendor's answer, median", ("gateway", "added_ms"), 3, "ms"),
    Target("one-shot chat, added to the first token, median", ("gateway", "first_token_added_ms"), 5, "ms"),
    Target("one-shot chat, CPU for a streamed token", ("gateway", "server", "cpu_us_per_token"), 80, "µs"),
    Target(
        "a LiteLLM proxy's requests a second, as a share of ours, 16 open, one core each",
        ("gateway", "litellm_share_of_requests"),
        0.25,
        "",
    ),
    Target(
        "the caller leaves until the vendor's connection is closed, slowest", ("gateway", "slowest_left_ms"), 100, "ms"
    ),
    Target("server ready, embedded engines, slowest", ("startup", "server_ready_s", "embedded", "max"), 3, "s"),
    Target("server ready, instant engines, slowest", ("startup", "server_ready_s", "instant", "max"), 3, "s"),
    Target("`import realtime.client`, median", ("startup", "import_client_s", "p50"), 0.3, "s"),
)

PEERS = """The peers' figures are quoted, not run again here: medians, on loopback, on a machine with two shared
virtual cores. Pipecat 1.14.0 with SmallWebRTC was measured by the method used here (engines without latency, 3.3 s
of synthetic speech, answers of 5 s, talked over 1.5 s after they began): with 200 ms of configured silence 201 ms
over it with voice activity detection alone and 252 ms with its default turn model (n = 12 each), barge-in 480 ms
(p90 481 and 520 ms), set-up n = 60. FastRTC 0.0.34 was measured at the arrival of its packets; it has no silence
setting to subtract, and it was talked over for 0.9 s. The figure of LiveKit Agents 1.8.9, with default settings, is
the emptying of its server's queue, for it needs a room server to reach the wire."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here as well as to stdout")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write them as a page, e.g. docs/performance.md")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed or a turn failed")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")


def progress(options: argparse.Namespace) -> Callable[[str], None]:
    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    return (lambda _: None) if options.quiet else say


def finish(results: Json, options: argparse.Namespace, part: str | None = None) -> None:
    """Print and write the results of a run, and leave with its exit code.

    `part`: the run is one part of the page, the rest of which is left as it is.
    """
    command = f"python -m {_module()} {shlex.join(sys.argv[1:])}".rstrip()
    whole = {"command": command, "machine": machine.describe(), **results, "targets": list(_judged(results))}
    text = json.dumps(whole, indent=2)
    print(text)
    if options.json:
        options.json.write_text(text + "\n")
    if options.write and part is not None:
        section.put(options.write, part, part_of_page(whole, part))
    elif options.write:
        options.write.write_text(page(whole))
    failed = [target["name"] for target in whole["targets"] if not target["met"]]
    failed += results.get("latency", {}).get("checks", {}).get("failures", [])
    if options.check and failed:
        sys.exit("missed: " + "; ".join(failed))


def _module() -> str:
    name = Path(sys.argv[0]).stem
    return "benchmarks" if name == "__main__" else f"benchmarks.{name}"


def _judged(results: Json) -> Iterator[Json]:
    """Every target whose figure is in the results."""
    for target in TARGETS:
        value: Any = results
        for step in target.path:
            value = value.get(step) if isinstance(value, dict) else None
        if value is not None:
            yield {
                "name": target.name,
                "measured": value,
                "limit": target.limit,
                "unit": target.unit,
                "met": value <= target.limit,
                "peer": target.peer,
            }


def part_of_page(whole: Json, part: str) -> str:
    """The results of one benchmark alone: `gateway` or `telephony`."""
    heading, *rest = {"gateway": _gateway, "telephony": _telephony}[part](whole[part])
    return "\n\n".join([heading, _about(whole), _targets(whole), *rest])


def page(whole: Json) -> str:
    """The results as Markdown."""
    parts = [
        "# Performance",
        "Written by the benchmark itself (`make bench ARGS='--write docs/performance.md'`); "
        "what is measured, and how, stands in [benchmarks/README.md](../benchmarks/README.md).",
        _about(whole),
        "## Targets",
        _targets(whole),
        PEERS,
    ]
    if "latency" in whole:
        parts += _latency(whole["latency"])
    if "websocket" in whole:
        calls = whole["websocket"]
        parts += [
            "## Listening calls over WebSockets (milliseconds)",
            f"{calls['calls']} calls append 20 ms of a quiet room's noise fifty times a second. The server spends "
            f"{calls['append_us']:g} µs of CPU on each, {calls['server_cores']:g} cores in all. "
            f"Failures: {len(calls['failures'])}.",
            _figures([(name.replace("_", " "), rows) for name, rows in calls["speech_started_ms"].items()]),
        ]
    if "telephony" in whole:
        parts += _telephony(whole["telephony"])
    if "gateway" in whole:
        parts += _gateway(whole["gateway"])
    if "startup" in whole:
        startup = whole["startup"]
        rows = [(f"server ready, {name} engines", figures) for name, figures in startup["server_ready_s"].items()]
        parts += [
            "## Start (seconds)",
            _figures([*rows, ("`import realtime.client`", startup["import_client_s"])]),
        ]
    return "\n\n".join(parts) + "\n"


def _about(whole: Json) -> str:
    about = whole["machine"]
    return "\n".join(
        [
            f"- Date: {about['date']}",
            f"- Command: `{whole['command']}`",
            f"- Machine: {about['cpu']}, {about['cores']} cores, {about['system']}",
            f"- Python {about['python']}, aiortc {about['aiortc']}",
            *_quietness(whole),
        ]
    )


def _targets(whole: Json) -> str:
    return _table(
        ("figure", "measured", "target", "met", "peers"),
        [
            (
                target["name"],
                f"{target['measured']:g} {target['unit']}",
                f"≤ {target['limit']:g} {target['unit']}",
                "yes" if target["met"] else "**no**",
                target["peer"],
            )
            for target in whole["targets"]
        ],
    )


def _latency(latency: Json) -> list[str]:
    conditions, checks = latency["conditions"], latency["checks"]
    barge_in = latency["barge_in_ms"]
    failures = checks["failures"]
    shown = "; ".join(failures[:MAX_SHOWN]) + ("; …" if len(failures) > MAX_SHOWN else "")
    attempts = conditions["turns"] + len(CLASS_NAMES) * conditions["barge_ins_per_class"]
    return [
        "## On the wire (milliseconds)",
        f"One call, `--engines {conditions['engines']}`, {conditions['silence_ms']} ms of configured silence, answers "
        f"of {conditions['answer_s']:g} s; server and caller are two processes"
        + (", each kept on a core of its own" if latency["pinned_to_own_cores"] else "")
        + ("; the caller runs before all others there." if latency["caller_goes_first"] else "."),
        _figures(
            [
                ("voice to voice", latency["voice_to_voice_ms"]),
                ("voice to voice less the silence", latency["voice_to_voice_over_silence_ms"]),
                ("voice to voice of what talked over an answer", latency["voice_to_voice_after_barge_in_ms"]),
                ("barge-in, first second", barge_in["first_second"]),
                ("barge-in, middle", barge_in["middle"]),
                ("barge-in, last 300 ms", barge_in["last_300_ms"]),
                ("barge-in, all", barge_in["all"]),
                ("offer to answer", latency["set_up_ms"]["offer_to_answer"]),
                ("offer to connected", latency["set_up_ms"]["offer_to_connected"]),
                ("offer to first packet of a greeting", latency["set_up_ms"]["offer_to_greeting"]),
            ]
        ),
        f"{checks['answers_cleared']} answers were reported cut (`output_audio_buffer.cleared`), "
        f"{checks['answers_ended_before_the_cut']} came to their own end first. Packets lost: "
        f"{checks['packets_lost']}. Gaps over 100 ms inside answers: {checks['gaps_inside_answers_ms']['n']}. "
        f"The caller's own packets left {checks['caller_late_p99_ms']} ms late (p99), "
        f"{checks['caller_late_max_ms']} ms at most. Failures in {attempts} turns: {len(failures)}"
        + (f" ({shown})." if failures else "."),
        "## Where the time goes (milliseconds)",
        "The server's own record of each turn (`realtime.turn.metrics`), from the arrival of the last voiced frame.",
        _figures([(name.removesuffix("_ms"), figures) for name, figures in latency["server_record_ms"].items()]),
    ]


def _telephony(calls: Json) -> list[str]:
    return [
        "## Telephone calls over a carrier's socket (milliseconds)",
        f"{calls['calls']} calls in Twilio's format, G.711 at 8 kHz both ways, for {calls['seconds']:g} s; "
        f"callers speak {100 * calls['callers_speak']:.0f} % of the time, the bot {100 * calls['bot_speaks']:.0f} %, "
        f"one turn in five talks over the answer. The server takes {calls.get('server_cores', 0):g} cores: "
        f"{calls.get('calls_per_core', 0):g} calls a core. The carrier's queue ran dry inside an answer "
        f"{calls['queue_ran_dry']} times; turns that failed: {len(calls['failures'])}.",
        _figures(
            [
                ("answer's messages late", calls["lateness_ms"]),
                ("left to play when one came", calls["left_ms"]),
                ("caller's onset to the flush", calls["flush_ms"]),
                ("end of speech to the first audio, less the silence", calls["answer_ms"]),
                ("the carrier's own frames late", calls["generator_late_ms"]),
            ]
        ),
    ]


def _gateway(gateway: Json) -> list[str]:
    conditions = gateway["conditions"]
    names = {"vendor": "the vendor alone", "server": "through the server"}
    if "litellm" in gateway:
        names["litellm"] = f"through a LiteLLM {gateway['litellm']['version']} proxy"
    columns = ("requests_per_s", "cpu_ms_per_request", "cpu_us_per_token", "cpu_us_per_token_all_open")
    head = (
        "",
        "answer, ms p50 (p95)",
        "first token, ms p50 (p95)",
        "requests/s",
        "CPU ms a request",
        "CPU µs a token",
        "…, all open",
    )
    rows = []
    for part, name in names.items():
        figures = gateway[part]
        times = [f"{figures[key]['p50']:g} ({figures[key]['p95']:g})" for key in ("answer_ms", "first_token_ms")]
        rows.append((name, *times, *(f"{figures[column]:g}" if column in figures else "" for column in columns)))
    return [
        "## One-shot chat over a vendor that answers at once",
        "Latencies one request after another; requests a second, and their CPU, with "
        f"{conditions['open']} connections open; the CPU of a token with 2 open, where each comes by itself, and with "
        f"all; streamed answers have {conditions['tokens']} tokens, one a millisecond, and leave the server every 10 ms"
        + (", each server on a core of its own." if conditions["pinned_to_own_cores"] else "."),
        _table(head, rows),
        "From the caller's leaving to the end of the vendor's connection (milliseconds):",
        _figures(list(gateway["left_ms"].items())),
    ]


def _quietness(whole: Json) -> list[str]:
    taken = [
        whole[part].get("other_processes_cores")
        for part in ("startup", "latency", "websocket", "telephony", "gateway")
        if part in whole
    ]
    known = [cores for cores in taken if cores is not None]
    if not known:
        return ["- What else ran on the machine is not known."]
    verdict = "quiet" if max(known) <= machine.QUIET_CORES else "**not quiet: these figures do not count**"
    return [f"- Other processes took {max(known):g} cores meanwhile: {verdict}"]


def _figures(rows: list[tuple[str, Json]]) -> str:
    columns = ("n", "min", "p50", "p95", "max")
    return _table(
        ("", *columns),
        [
            (name, *(f"{figures[column]:g}" if column in figures else "" for column in columns))
            for name, figures in rows
        ],
    )


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
