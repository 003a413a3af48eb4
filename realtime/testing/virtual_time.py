"""An event loop whose time passes as fast as its work is done: what would be waited for is skipped.

`time.monotonic()` tells the loop's time while the loop runs, in its thread. Work
that the loop hands to threads is done at once, in place. While a socket is open, time passes as it really
does: nobody can know when its other side answers. One loop at a time, and not inside another one.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

_BREATH_S = 0.05
"""Real seconds that are waited for a socket, or for whoever may wake a loop that has nothing to wait for."""

_IDLE_BREATHS = 200
"""Such waits in a row after which nobody will."""

_real = time.monotonic


class Stuck(AssertionError):
    """Nothing is left that could happen."""


class Clock:
    """Seconds, from a beginning that means nothing."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class _Selector(selectors.DefaultSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._idle = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            self._idle = 0
            return ready
        sockets = len(self.get_map()) > 1  # one is the loop's own
        if timeout is not None and not sockets:
            self._idle = 0
            self._clock.now += timeout
            return ready
        began = _real()
        ready = super().select(_BREATH_S if timeout is None else min(timeout, _BREATH_S))
        self._clock.now += _real() - began
        self._idle = 0 if ready or timeout is not None else self._idle + 1
        if self._idle > _IDLE_BREATHS:
            raise Stuck("the call waits for something that nothing will bring about")
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or Clock()
        super().__init__(_Selector(self.clock))

    def time(self) -> float:
        return self.clock.now

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # type: ignore[override]
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """`work` to its end, in virtual time."""
        with self._told():
            return self.run_until_complete(work)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Everything in this thread that asks for the time gets the loop's; a loop of another would sleep by it."""
        before, clock, here = time.monotonic, self.clock, threading.get_ident()
        time.monotonic = lambda: clock.now if threading.get_ident() == here else before()
        try:
            yield
        finally:
            time.monotonic = before
