"""A server on one core, measured from another: how the benchmarks of what a caller notices are run."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from benchmarks import machine
from benchmarks.figures import Json
from benchmarks.server import Server, serve

T = TypeVar("T")


def measured(
    config: str, measure: Callable[[Server], Coroutine[Any, Any, T]], *, collecting: bool = True
) -> tuple[T, Json]:
    """Start a server with the instant engines, measure it, stop it; also, how undisturbed that was.

    What there is before is never searched by the garbage collector; `collecting=False` keeps it from starting at all.
    """
    cores = machine.available_cores()
    apart = len(cores) >= 2
    with serve(engines="instant", config=config, cores=cores[:1] if apart else ()) as server:
        machine.pin(cores[1:2] if apart else ())
        neighbours = machine.Neighbours(server.pid)
        gc.collect()
        gc.freeze()
        if not collecting:
            gc.disable()
        try:
            with machine.undisturbed() as first, asyncio.Runner(loop_factory=new_loop) as runner:
                results = runner.run(measure(server))
        finally:
            gc.enable()
            gc.unfreeze()
            machine.pin(cores)
        others = neighbours.cores()
    return results, {"pinned_to_own_cores": apart, "caller_goes_first": first, "other_processes_cores": others}


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop where it exists: its timers cost a twentieth."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
