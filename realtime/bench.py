"""How many calls this machine carries: a server of its own under a load of its own, on loopback.

A few calls tell what one costs. From that the number is worked out, leaving some of the core free, and
then tried: it counts only when the packets of every call left on time. Engines are the instant ones, so
the figure is that of the server alone: its own engines, where there are any, come on top.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from media.audio import FRAME_OUT, RATE_OUT, Pcm
from media.opus import SILENCE_PACKET, OpusEncoder
from realtime.load import SPOKEN_S, TURN_S, Load

LATE_MS: Final = 5.0
"""Packets may leave so late, 99 in 100 of them: a listener's jitter buffer takes no notice."""
BUSY: Final = 0.75
"""Of one core: what is left is for calls that begin, and for the moments at which many speak."""
FIRST: Final = 10
"""Calls that tell what one costs."""
TRIES: Final = 4
_FEWER: Final = 0.8
"""Of the calls that were too many: the next try."""
_MORE: Final = 1.1
"""Of the calls that were carried: fewer than that is not worth another try."""
_READY_S: Final = 30.0
_CONFIG: Final = "[limits]\ncalls = 10000\ntokens_per_minute = 1000000\nloop_lag_ms = 100000\n"
"""The load is given, not admitted: what is measured is what it costs."""
_FOREIGN: Final = ("REALTIME_", "INFRAI_", "OPENAI_", "TWILIO_")
"""Prefixes of variables that would change what is measured."""


class BenchError(RuntimeError):
    """It cannot be measured here; the message says why."""


@dataclass(frozen=True, slots=True)
class Measured:
    """`busy`: cores that the server took. `late_ms`, `own_late_ms`: the 99th percentile of the server's packets
    and of the callers'. `lost`: packets that never came."""

    calls: int
    busy: float
    late_ms: float
    own_late_ms: float
    lost: int

    @property
    def is_carried(self) -> bool:
        return self.late_ms <= LATE_MS and not self.lost and self.busy <= 1.1 * BUSY

    @property
    def ms_per_call(self) -> float:
        """CPU of the server for a call and second."""
        return self.busy / self.calls * 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """`carried` of `tried`; None when even the fewest were too many."""

    tried: list[Measured]

    @property
    def carried(self) -> Measured | None:
        return max((one for one in self.tried if one.is_carried), key=lambda one: one.calls, default=None)

    @property
    def is_disturbed(self) -> bool:
        """The callers themselves were late: another program had the machine, and it may carry more."""
        return any(one.own_late_ms > LATE_MS / 2 for one in self.tried)


async def measure(*, seconds: float, most: int, say: Callable[[str], None]) -> Verdict:
    """Start a server and load it. Raises `BenchError`, `LoadError`."""
    tried: list[Measured] = []
    calls = min(FIRST, most)
    with server() as (url, key, pid):
        async with _load(url, key) as load:
            while True:
                say(f"{calls} calls, {TURN_S + seconds:.0f} s")
                if calls >= len(load.calls):
                    await load.open(calls - len(load.calls))
                else:
                    await load.hang_up(len(load.calls) - calls)
                tried.append(await _measure(load, pid, seconds))
                say(_shown(tried[-1]))
                following = next_try(tried, most)
                if following is None:
                    return Verdict(tried)
                calls = following


def next_try(tried: list[Measured], most: int) -> int | None:
    """How many calls to try next, None when it is known: up by what they cost until it is too many, then down."""
    last = tried[-1]
    if len(tried) == TRIES:
        return None
    carried = [one.calls for one in tried if one.is_carried]
    if not last.is_carried:
        fewer = int(last.calls * _FEWER)
        return fewer if fewer > max(carried, default=0) else None
    wanted = min(most, int(BUSY / max(last.ms_per_call, 0.1) * 1000))
    return wanted if len(carried) == len(tried) and wanted >= last.calls * _MORE else None


def summary(verdict: Verdict) -> str:
    """What an operator is told."""
    carried = verdict.carried
    if carried is None:
        lines = [f"This machine does not carry {verdict.tried[-1].calls} calls."]
    else:
        lines = [
            f"One server process on this machine carries {carried.calls} calls: {carried.busy:.2f} of a core, "
            f"packets {carried.late_ms:.1f} ms late (99 in 100).",
            "Each caller speaks 40 % of the time and the bot 40 %. Engines that run here come on top. "
            "A process uses one core: more calls need more processes.",
        ]
    if verdict.is_disturbed:
        lines.append("The callers were late themselves, so something else kept this machine busy: it may carry more.")
    return "\n".join(lines)


def _shown(one: Measured) -> str:
    return (
        f"  {one.busy:.2f} of a core, {one.ms_per_call:.1f} ms of CPU a call and second; "
        f"packets {one.late_ms:.1f} ms late at most (99 in 100), {one.lost} lost"
    )


async def _measure(load: Load, pid: int, seconds: float) -> Measured:
    await load.run(TURN_S)  # until the calls are at different places of their turns
    load.measure()
    began, cpu = time.monotonic(), _cpu_seconds(pid)
    await load.run(seconds)
    busy = (_cpu_seconds(pid) - cpu) / (time.monotonic() - began)
    late, own = load.lateness_s, sorted(load.own_lateness_s)
    if not late:
        raise BenchError("no packet came back from the server: is UDP on loopback filtered?")
    return Measured(
        calls=len(load.calls),
        busy=busy,
        late_ms=late[int(len(late) * 0.99)] * 1000,
        own_late_ms=own[int(len(own) * 0.99)] * 1000,
        lost=sum(call.lost for call in load.calls),
    )


def _cpu_seconds(pid: int) -> float:
    """Of a process and its threads."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        raise BenchError("this system does not tell what another process costs; it is measured on Linux") from None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def _load(url: str, key: str) -> AsyncIterator[Load]:
    load = Load(url, key, [packets(murmur(SPOKEN_S))], SILENCE_PACKET)
    try:
        yield load
    finally:
        await load.close()


@contextmanager
def server() -> Iterator[tuple[str, str, int]]:
    """A server on a core of its own, with its callers on the others: its address, its key, its process."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    with tempfile.TemporaryDirectory(prefix="realtime-bench-") as folder:
        home = Path(folder)
        (home / "bench.toml").write_text(_CONFIG)
        key = f"ifr_pk_proj_{secrets.token_urlsafe(24)}"
        port = _free_port()
        command = [sys.executable, "-m", "realtime.cli", "serve", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--engines", "instant", "--config", str(home / "bench.toml")]
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        environment |= {"REALTIME_DATA": str(home / "data"), "REALTIME_API_KEY": key}
        with (home / "log").open("wb") as log:
            _keep_to(cores[:1])
            process = subprocess.Popen(command, cwd=home, env=environment, stdout=log, stderr=log)
            _keep_to(cores[1:])
            try:
                _until_ready(process, port, home / "log")
                yield f"http://127.0.0.1:{port}", key, process.pid
            finally:
                _keep_to(cores)
                process.terminate()
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()


def _keep_to(cores: list[int]) -> None:
    if cores:
        os.sched_setaffinity(0, cores)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _until_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
                connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
                if b" 200 " in connection.recv(64):
                    return
        except OSError:
            pass
        time.sleep(0.05)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
    raise BenchError(f"the server did not start:\n{tail}")


def murmur(seconds: float) -> Pcm:
    """Vowels one after the other, at 24 kHz: the voice detector takes them for one utterance."""
    chance = np.random.default_rng(1)
    vowels = ((730, 1090, 2440), (270, 2290, 3010), (300, 870, 2240), (530, 1840, 2480), (570, 840, 2410))
    out = np.zeros(round(seconds * RATE_OUT))
    at = 0
    while at < len(out):
        size = min(round(chance.uniform(0.14, 0.26) * RATE_OUT), len(out) - at)
        phase = np.cumsum(chance.uniform(100, 150) * np.linspace(1.05, 0.9, size) / RATE_OUT)
        pulses = np.diff(np.floor(phase), prepend=0.0)
        pulses += chance.standard_normal(size) * 0.01 - pulses.mean()
        s = 2j * np.pi * np.fft.rfftfreq(size, 1 / RATE_OUT)
        spectrum = np.fft.rfft(pulses)
        for formant, width in zip(vowels[chance.integers(len(vowels))], (80, 100, 150), strict=True):
            w = 2 * np.pi * formant
            spectrum *= w * w / (s * s + 2 * np.pi * width * s + w * w)
        sound = np.fft.irfft(spectrum, size)
        sound *= np.minimum(1, np.minimum(np.arange(size), np.arange(size)[::-1]) / (0.02 * RATE_OUT))
        out[at : at + size] += sound / np.abs(sound).max()
        at += size + round(chance.uniform(0.02, 0.06) * RATE_OUT)
    pcm: Pcm = (out * 9000).astype(np.int16)
    return pcm


def packets(pcm: Pcm) -> list[bytes]:
    """24 kHz as Opus, 20 ms each."""
    encoder = OpusEncoder()
    return [encoder.encode(frame) for frame in pcm[: len(pcm) // FRAME_OUT * FRAME_OUT].reshape(-1, FRAME_OUT)]
