"""The machine that figures come from, and how quiet it was while they were taken.

A benchmark shares its machine with whatever else runs there, so each result carries the CPU time
that went to processes which are neither the server nor the client.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.figures import Json

QUIET_CORES = 0.15
"""CPU cores taken by others below which a run counts as quiet: a desktop's idle services."""


def describe() -> Json:
    """What a reader needs to judge the figures by."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu_model(),
        "cores": len(available_cores()) or os.cpu_count(),
        "system": f"{platform.system()} {platform.release().split('-')[0]} {platform.machine()}",
        "python": platform.python_version(),
        "aiortc": version("aiortc"),
    }


def available_cores() -> list[int]:
    """The cores this process may use; empty where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def pin(cores: Sequence[int]) -> None:
    """Keep this process, and those it starts from now on, on `cores`; nothing where that is impossible."""
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


@contextmanager
def undisturbed() -> Iterator[bool]:
    """Run this process before all others of its core, where the system allows it; whether it did.

    For what measures, never for what is measured: a caller that is late itself has nothing to say.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except (AttributeError, OSError):
        yield False
        return
    try:
        yield True
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


class Neighbours:
    """Measures what the rest of the machine did while a benchmark ran. Only Linux tells; else `None`."""

    def __init__(self, *pids: int) -> None:
        """`pids`: further processes, besides this one, that belong to the benchmark."""
        self._pids = pids
        self._began = time.monotonic()
        self._busy = _busy_seconds()
        self._own = self._own_seconds()

    def cores(self) -> float | None:
        """Mean number of cores that others kept busy since the construction."""
        busy, own = _busy_seconds(), self._own_seconds()
        if busy is None or own is None or self._busy is None or self._own is None:
            return None
        elapsed = time.monotonic() - self._began
        return round(max(0.0, (busy - self._busy) - (own - self._own)) / elapsed, 3)

    def _own_seconds(self) -> float | None:
        times = [process_seconds(pid) for pid in (os.getpid(), *self._pids)]
        return None if None in times else sum(seconds for seconds in times if seconds is not None)


def process_seconds(pid: int) -> float | None:
    """CPU seconds of a process, its threads and the children it has waited for."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return sum(int(field) for field in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def _busy_seconds() -> float | None:
    try:
        user, nice, system, _, _, irq, soft_irq = Path("/proc/stat").read_text().split()[1:8]
    except OSError:
        return None
    return sum(map(int, (user, nice, system, irq, soft_irq))) / os.sysconf("SC_CLK_TCK")


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
