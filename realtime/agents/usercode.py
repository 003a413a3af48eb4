"""Where the developer's code runs: an event loop in a thread of its own, so that it can never hold up sound.

A function that blocks there delays other agents' code and nothing else; every wait for it has a
deadline on the server's side, and when that passes the line it stands at is known. Plain functions
run in threads, a bounded number at once. `Inline` runs everything on the caller's loop instead: for
tests, and under a virtual clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import logging
import sys
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from realtime.agents.blame import AT, of_function, where, where_now
from realtime.observe.watchdog import Watchdog

log = logging.getLogger("realtime.agents")

GRACE_S = 0.5
"""How much later than the code's own deadline it is given up."""

HELD_S = 0.5
"""Without a beat of the developer's loop for longer than this, the line that holds it up is logged."""

SWITCH_S = 0.001
"""How long a thread that only computes keeps the interpreter from the others. With Python's 5 ms the server's loop
was 8 ms late in the middle and 24 in the worst of a hundred beside one such thread, with this 2 and 10."""

THREADS = 32
"""Plain functions that run at once."""

T = TypeVar("T")


class TookTooLong(Exception):
    """`place`: where the code was when its time was up."""

    def __init__(self, seconds: float, place: str) -> None:
        super().__init__(f"not done after {seconds:g} s, at {place}")
        self.seconds = seconds
        self.place = place


class Misbehaved(Exception):
    """What no code may raise here: an exit, a cancellation that nobody asked for. The cause has its line."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"{type(cause).__name__} was raised")
        self.__cause__ = cause


class UserCode(Protocol):
    def start(self) -> None:
        """Called on the server's loop, before everything else."""

    async def call(self, function: Callable[..., Any], *given: object, **named: object) -> Any:
        """For the developer's side: a function of theirs, async or not."""

    async def run(self, work: Coroutine[Any, Any, T], seconds: float | None) -> T:
        """What `work` gives; it is cancelled with its waiter. Raises `TookTooLong` and whatever it raises."""

    async def main(self, work: Coroutine[Any, Any, T]) -> T:
        """For the developer's side: `work` on the server's loop."""

    def post(self, function: Callable[[], object]) -> None:
        """For the developer's side: call `function` on the server's loop, soon and in order."""

    def place(self) -> str | None:
        """The line at which the developer's code holds up its loop; None when it does not."""

    def close(self) -> None: ...


async def _limited(work: Coroutine[Any, Any, T], seconds: float | None) -> T:
    try:
        async with asyncio.timeout(seconds) as limit:
            return await work
    except TimeoutError as error:
        if seconds is None or not limit.expired():
            raise
        raise TookTooLong(seconds, where(error)) from None


@dataclass(frozen=True, slots=True)
class _Outcome(Generic[T]):
    """What the developer's code came to. `error` comes as a value: an exit that is raised would end its loop."""

    result: T | None = None
    error: BaseException | None = None

    def get(self) -> T:
        if self.error is None:
            return self.result  # type: ignore[return-value]
        raise self.error if isinstance(self.error, Exception) else Misbehaved(self.error)


async def _outcome(work: Coroutine[Any, Any, T], seconds: float | None) -> _Outcome[T]:
    try:
        return _Outcome(await _limited(work, seconds))
    except BaseException as error:
        return _Outcome(error=error)


def _is_given_up() -> bool:
    """Who waits here was cancelled, and not what it waits for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Threads:
    """Plain functions in threads, a bounded number at once. Daemon threads, so that none keeps the server running."""

    def __init__(self, most: int = THREADS) -> None:
        self._places = asyncio.Semaphore(most)

    async def call(self, function: Callable[..., Any], *given: object, **named: object) -> Any:
        """The developer's function, async or not, on the developer's loop."""
        if inspect.iscoroutinefunction(function):
            return await function(*given, **named)
        await self._places.acquire()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        called = functools.partial(contextvars.copy_context().run, function, *given, **named)
        work = functools.partial(self._work, loop, future, called)
        thread = threading.Thread(target=work, name="agents: " + of_function(function), daemon=True)
        thread.start()
        try:
            return await future
        except asyncio.CancelledError as error:
            frame = sys._current_frames().get(thread.ident or 0)
            if thread.is_alive():
                error.add_note(AT + (where_now(frame) or of_function(function)))
            raise

    def _work(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any], function: Callable[[], Any]) -> None:
        """In the thread. The place is free when the function has ended, however long ago it was given up."""
        result, error = None, None
        try:
            result = function()
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(self._settle, future, result, error)

    def _settle(self, future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
        self._places.release()
        if future.done():
            return
        if error is None:
            future.set_result(result)
        elif isinstance(error, Exception) and not isinstance(error, StopIteration):
            future.set_exception(error)
        else:
            future.set_exception(Misbehaved(error))


class OwnThread(Threads):
    """`start` is called on the server's loop."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._main: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="agents", daemon=True)
        self._watchdog = Watchdog(held_s=HELD_S, name="the agents' event loop")

    def start(self) -> None:
        self._main = asyncio.get_running_loop()
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_S))
        if not self._thread.is_alive():
            self._thread.start()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._watchdog.start)
        while not self._closed:
            try:
                self._loop.run_forever()
            except BaseException as error:  # out of a task or callback of the developer's own
                log.error("%s was raised at %s; the agents go on", type(error).__name__, where(error))
            else:
                if not self._closed:
                    log.error("the agents' event loop was stopped by an agent's code; it goes on")

    async def run(self, work: Coroutine[Any, Any, T], seconds: float | None) -> T:
        future = asyncio.run_coroutine_threadsafe(_outcome(work, seconds), self._loop)
        limit = asyncio.timeout(None if seconds is None else seconds + GRACE_S)
        try:
            async with limit:
                return (await asyncio.wrap_future(future)).get()
        except asyncio.CancelledError as error:
            if _is_given_up():
                raise
            raise Misbehaved(error) from None  # it was cancelled over there
        except TimeoutError:
            if seconds is None or not limit.expired():
                raise
            raise TookTooLong(seconds, self.place() or "an await that is not cancelled") from None
        finally:
            del future, limit  # what was raised refers to this frame, and both to what was raised

    def place(self) -> str | None:
        return where_now(sys._current_frames().get(self._thread.ident or 0))

    async def main(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._main is not None, "started before it is used"
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._main))

    def post(self, function: Callable[[], object]) -> None:
        assert self._main is not None, "started before it is used"
        self._main.call_soon_threadsafe(function)

    def close(self) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop)

    def _stop(self) -> None:
        self._closed = True
        self._watchdog.stop()
        self._loop.stop()


class Inline(Threads):
    """Everything on one loop."""

    def start(self) -> None:
        """Nothing to start."""

    async def run(self, work: Coroutine[Any, Any, T], seconds: float | None) -> T:
        try:
            return await _limited(work, seconds)
        except asyncio.CancelledError as error:
            if _is_given_up():
                raise
            raise Misbehaved(error) from error
        except (Exception, GeneratorExit):
            raise
        except BaseException as error:
            raise Misbehaved(error) from error
        finally:
            await asyncio.sleep(0)  # what the work has posted comes first, as it does from another thread

    async def main(self, work: Coroutine[Any, Any, T]) -> T:
        return await work

    def post(self, function: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_soon(function)

    def place(self) -> str | None:
        return None

    def close(self) -> None:
        """Holds nothing."""
