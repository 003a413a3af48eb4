"""Agents of a measured server, one recorded and one not, and a clock on every step of the recordings' tasks.

The file that PROBE_NOTES names gets, twice a second: the longest step of any of them on the server's event loop,
by the wall and by CPU time, and the CPU time of all. What the tasks of a busy machine have to wait between
two instructions is in the first, not in the others.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Coroutine, Generator
from pathlib import Path
from types import coroutine
from typing import Any

from realtime.agents import Agent
from realtime.recording.recordings import Recording

EVERY_S = 0.5

plain = Agent("Be brief.", name="plain")
recorded = Agent("Be brief.", name="recorded", recording=True)

figures = {"steps": 0, "longest_ms": 0.0, "longest_cpu_ms": 0.0, "cpu_s": 0.0}


@coroutine
def _timed(task: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
    value: Any = None
    error: BaseException | None = None
    while True:
        wall, cpu = time.perf_counter(), time.thread_time()
        try:
            waited = task.throw(error) if error is not None else task.send(value)
        except StopIteration:
            return
        finally:
            _note(time.perf_counter() - wall, time.thread_time() - cpu)
        value = error = None
        try:
            value = yield waited
        except BaseException as thrown:  # the task's own to judge, a cancellation too
            error = thrown


def _note(wall: float, cpu: float) -> None:
    figures["steps"] += 1
    figures["longest_ms"] = max(figures["longest_ms"], 1000 * wall)
    figures["longest_cpu_ms"] = max(figures["longest_cpu_ms"], 1000 * cpu)
    figures["cpu_s"] += cpu


def _tell(notes: Path) -> None:
    while True:
        time.sleep(EVERY_S)
        notes.write_text(json.dumps(figures))


if "PROBE_NOTES" in os.environ:
    _write = Recording._write

    async def _write_timed(self: Recording) -> None:
        await _timed(_write(self))

    Recording._write = _write_timed  # type: ignore[method-assign]
    threading.Thread(target=_tell, args=(Path(os.environ["PROBE_NOTES"]),), daemon=True).start()
