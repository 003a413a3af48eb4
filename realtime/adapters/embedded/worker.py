"""A supervised worker process for engines that block: the server's side of its pipes.

Engines that hold the GIL or have one global state live in a process of their own, spawned (never
forked), fed over stdin and read over stdout by the event loop: no thread, no executor. Many streams
share one worker. When it dies or no longer answers, every open stream raises
`EngineError(code="worker_died")` and a fresh one is started at once, then ever later (bounded).
Everything is bounded: streams, items in flight, bytes the worker has not taken, its log lines. It must
never leave a process behind: the worker ends with its stdin, whatever happened to the server.

    IDLE --start, open--> STARTING --ready--> READY --died--> WAITING --backoff over--> STARTING
    STARTING --failed--> WAITING;   any --close--> CLOSED
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from realtime.adapters.base import EngineError
from realtime.adapters.embedded.frames import HEADER, Frame, FrameError, Kind, following, parse

logger = logging.getLogger(__name__)

_MAIN = "realtime.adapters.embedded.worker_main"
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TMP", "TEMP", "SYSTEMROOT", "LD_LIBRARY_PATH")
"""What a worker gets of the server's environment; never the vendors' keys."""
_LOG_WIDTH = 300
_KILL_AFTER_S = 1.0
"""Seconds a worker has to end after it was asked to."""
_HEALTHY_S = 10.0
"""Seconds after which a worker that dies is no longer counted as failing to start."""
_PINGS = 3
"""Unanswered pings after which a worker counts as stuck."""


class WorkerState(Enum):
    IDLE = "idle"
    STARTING = "starting"
    READY = "ready"
    WAITING = "waiting"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class WorkerLimits:
    """`window`: items in flight per stream. `unread_bytes`: data sent per stream and not yet worked off
    (60 s of 16 kHz audio), `all_unread_bytes`: of all streams. `stall_seconds`: without an answer, a worker is
    replaced. `log_lines`: of its stderr that one worker may write into our log."""

    streams: int = 256
    window: int = 32
    unread_bytes: int = 1_920_000
    all_unread_bytes: int = 1 << 28
    start_seconds: float = 20.0
    stall_seconds: float = 12.0
    log_lines: int = 50
    backoff_seconds: float = 0.25
    backoff_max_seconds: float = 5.0


class WorkerStream:
    """One piece of work. Made by `Worker.open`; `close` it always."""

    def __init__(self, worker: Worker, number: int) -> None:
        self._worker = worker
        self._number = number
        self._items: deque[Frame] = deque()
        self._changed = asyncio.Event()
        self._error: EngineError | None = None
        self._ended = False
        self._unread = 0
        self._owed = 0

    @property
    def over(self) -> bool:
        """Ended, failed or closed; items may still wait to be received."""
        return self._ended

    def send(self, data: bytes) -> bool:
        """Data for the engine. False: the worker is too far behind, or the stream is over; it was dropped."""
        if self._ended or self._unread + len(data) > self._worker.limits.unread_bytes:
            return False
        if self._worker._unread + len(data) > self._worker.limits.all_unread_bytes:
            return False
        self._owe(len(data))
        self._worker._write(Frame(Kind.DATA, self._number, body=data))
        return True

    def finish(self) -> None:
        if not self._ended:
            self._worker._write(Frame(Kind.FINISH, self._number))

    async def receive(self) -> Frame | None:
        """The next item, None after the last one. Raises `EngineError`."""
        while not self._items:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._changed.clear()
            await self._changed.wait()
        self._owed += 1
        if self._owed * 2 >= self._worker.limits.window and not self._ended:
            self._worker._write(Frame(Kind.CREDIT, self._number, {"n": self._owed}))
            self._owed = 0
        return self._items.popleft()

    def close(self) -> None:
        """Nothing more is wanted: the engine stops at once. Idempotent."""
        if not self._ended:
            self._worker._write(Frame(Kind.CANCEL, self._number))
        self._items.clear()
        self._end(None)

    def _take(self, frame: Frame) -> None:
        if frame.kind is Kind.ITEM:
            if len(self._items) >= 2 * self._worker.limits.window:
                raise FrameError("more items than were asked for")
            self._items.append(frame)
        elif frame.kind is Kind.TAKEN:
            self._owe(-min(self._unread, int(frame.head.get("n", 0))))
        elif frame.kind is Kind.FAILED:
            self._end(_failure(frame, self._worker.engine))
        elif frame.kind is Kind.END:
            self._end(None)
        self._changed.set()

    def _owe(self, count: int) -> None:
        self._unread += count
        self._worker._unread += count

    def _end(self, error: EngineError | None) -> None:
        if not self._ended:
            self._ended, self._error = True, error
            self._owe(-self._unread)
            self._worker._forget(self._number)
        self._changed.set()


class Worker:
    """`engine`: `package.module:function`, which the worker imports and calls with `options`. `main`: the module
    that runs it. `environ`: in place of the bare environment that engines of ours get."""

    def __init__(
        self,
        engine: str,
        options: Mapping[str, Any] | None = None,
        *,
        limits: WorkerLimits | None = None,
        main: str = _MAIN,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.engine = engine
        self._main = main
        self._environ = environ
        self.limits = limits or WorkerLimits()
        self.described: Mapping[str, Any] = {}
        """What the engine said of itself when it was ready."""
        self._options = dict(options or {})
        self._state = WorkerState.IDLE
        self._streams: dict[int, WorkerStream] = {}
        self._last_number = 0
        self._process: Process | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._up: asyncio.Future[None] | None = None
        """Of the attempt under way: done when the worker is ready or has failed."""
        self._unanswered = 0
        self._unread = 0
        """Bytes that all streams have sent and the process has not worked off."""

    @property
    def state(self) -> WorkerState:
        return self._state

    @property
    def pid(self) -> int | None:
        """The process that serves streams now."""
        return self._process.pid if self._process is not None and self._state is WorkerState.READY else None

    async def start(self) -> None:
        """Load and warm up. Idempotent. Raises `EngineError` when the engine cannot be loaded."""
        if self._state is WorkerState.CLOSED:
            raise self._error("worker_closed", "the engine was closed", retryable=False)
        if self._state is WorkerState.READY:
            return
        if self._supervisor is None:
            self._expect()
            self._state = WorkerState.STARTING
            self._supervisor = asyncio.create_task(self._supervise(), name=f"worker {self.engine}")
        up = self._up
        assert up is not None
        done, _ = await asyncio.wait([up], timeout=self.limits.start_seconds)
        if not done:
            raise self._error("worker_unavailable", f"not ready after {self.limits.start_seconds:.0f} s")
        up.result()

    async def open(self, head: Mapping[str, Any] | None = None, body: bytes = b"") -> WorkerStream:
        """A new stream on a worker that is ready; waits for a restart. Raises `EngineError`."""
        await self.start()
        if self._state is not WorkerState.READY:
            raise self._error("worker_unavailable", "the worker ended as it became ready")
        if len(self._streams) >= self.limits.streams:
            raise self._error("engine_busy", f"{self.limits.streams} streams are open")
        self._last_number = self._last_number % 0x7FFFFFFF + 1
        stream = WorkerStream(self, self._last_number)
        self._streams[self._last_number] = stream
        fields = {**(head or {}), "credit": self.limits.window}
        self._write(Frame(Kind.OPEN, self._last_number, fields, body))
        return stream

    async def close(self) -> None:
        """End the process: asked, then killed after a second. Idempotent."""
        self._state = WorkerState.CLOSED
        supervisor, self._supervisor = self._supervisor, None
        if supervisor is not None:
            supervisor.cancel()
            await asyncio.gather(supervisor, return_exceptions=True)
        if self._up is not None and not self._up.done():
            self._up.set_exception(self._error("worker_closed", "the engine was closed", retryable=False))

    # --- one process after the other --------------------------------------------------------------

    async def _supervise(self) -> None:
        failures = 0
        while True:
            self._state = WorkerState.STARTING
            began = time.monotonic()
            reason = "it ended"
            try:
                await self._run()
            except Exception as error:
                # Whatever it was (uvloop has a RuntimeError for a pipe that is closed already): a supervisor
                # that gave up here would leave the engine dead for as long as the server lives.
                reason = str(error) or type(error).__name__
            finally:
                if self._state is not WorkerState.CLOSED:
                    self._state = WorkerState.WAITING
                self._died(reason)
            failures = 0 if time.monotonic() - began > _HEALTHY_S else failures + 1
            logger.warning("worker %s: %s; starting another", self.engine, reason)
            self._expect()
            if failures > 1:
                doubled = self.limits.backoff_seconds * 2.0 ** min(failures - 2, 16)
                await asyncio.sleep(min(doubled, self.limits.backoff_max_seconds))

    async def _run(self) -> None:
        """One process from its start to its end."""
        process = await self._spawn()
        tasks: list[asyncio.Task[None]] = []
        try:
            self._process = process
            self._unanswered = 0
            tasks = [
                asyncio.create_task(self._read(process)),
                asyncio.create_task(self._watch(process)),
                asyncio.create_task(self._log(process)),
            ]
            await tasks[0]
        finally:
            self._process = None
            for task in tasks[:2]:
                task.cancel()
            await _end(process)
            if tasks:
                # What it wrote last says why it died.
                await asyncio.wait(tasks[2:], timeout=_KILL_AFTER_S)
                tasks[2].cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _spawn(self) -> Process:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", self._main, self.engine),
            stdin=PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=_environment() if self._environ is None else _with_our_paths(self._environ),
            # A Ctrl-C in the terminal is for the server, which ends its workers itself.
            start_new_session=True,
        )
        assert process.stdin is not None
        try:
            process.stdin.write(Frame(Kind.OPEN, 0, {"options": self._options, "parent": os.getpid()}).serialize())
        except Exception:
            await _end(process)
            raise
        return process

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                header = await process.stdout.readexactly(HEADER.size)
                rest = await process.stdout.readexactly(following(header))
            except asyncio.IncompleteReadError as error:
                raise EngineError(await _how_it_ended(process), code="worker_died") from error
            frame = parse(header, rest)
            self._unanswered = 0
            if frame.stream:
                stream = self._streams.get(frame.stream)
                if stream is not None:
                    stream._take(frame)
            elif frame.kind is Kind.READY:
                self.described = frame.head
                self._state = WorkerState.READY
                if self._up is not None and not self._up.done():
                    self._up.set_result(None)
            elif frame.kind is Kind.FAILED:
                raise _failure(frame, self.engine)

    async def _watch(self, process: Process) -> None:
        """Kills a worker that does not end and does not answer; its end is noticed by the reader."""
        interval = self.limits.stall_seconds / _PINGS
        loading = 0.0
        while True:
            await asyncio.sleep(interval)
            if self._state is WorkerState.STARTING:
                loading += interval
            else:
                self._unanswered += 1
                self._write(Frame(Kind.PING))
            if loading > self.limits.start_seconds or self._unanswered > _PINGS:
                logger.warning("worker %s does not answer and is killed", self.engine)
                process.kill()

    async def _log(self, process: Process) -> None:
        assert process.stderr is not None
        lines = 0
        while block := await process.stderr.read(4096):
            for line in block.decode("utf-8", "replace").splitlines():
                lines += 1
                if lines <= self.limits.log_lines and line.strip():
                    logger.info("worker %s: %s", self.engine, line[:_LOG_WIDTH])
                elif lines == self.limits.log_lines + 1:
                    logger.info("worker %s: more of its output is dropped", self.engine)

    # --- for streams --------------------------------------------------------------------------------

    def _write(self, frame: Frame) -> None:
        process = self._process
        if process is not None and process.stdin is not None and not process.stdin.is_closing():
            process.stdin.write(frame.serialize())

    def _forget(self, number: int) -> None:
        self._streams.pop(number, None)

    def _expect(self) -> None:
        self._up = asyncio.get_running_loop().create_future()
        # Whoever waits gets the exception; when nobody does it is in the log already.
        self._up.add_done_callback(lambda up: None if up.cancelled() else up.exception())

    def _died(self, reason: str) -> None:
        closed = self._state is WorkerState.CLOSED
        code, message = ("worker_closed", "was closed") if closed else ("worker_died", f"died: {reason}")
        for stream in list(self._streams.values()):
            stream._end(self._error(code, f"the engine's process {message}"))
        if self._up is not None and not self._up.done():
            self._up.set_exception(self._error("worker_failed", f"the engine could not start: {reason}"))

    def _error(self, code: str, message: str, *, retryable: bool = True) -> EngineError:
        return EngineError(message, code=code, engine=self.engine, retryable=retryable)


def _environment() -> dict[str, str]:
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    return _with_our_paths(environment) | {
        # Engines here use one core; a pool of threads per worker would only cost memory.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
    }


def _with_our_paths(environ: Mapping[str, str]) -> dict[str, str]:
    """What this process can import, its child can."""
    own = [os.path.abspath(entry) for entry in sys.path if entry]
    given = [entry for entry in environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    paths = os.pathsep.join(dict.fromkeys([*given, *own]))
    return {**environ, "PYTHONPATH": paths, "PYTHONUNBUFFERED": "1"}


def _failure(frame: Frame, engine: str) -> EngineError:
    code, message = str(frame.head.get("code", "engine_error")), str(frame.head.get("message", "failed"))
    return EngineError(message, code=code, engine=engine, retryable=frame.head.get("retryable") is not False)


async def _how_it_ended(process: Process) -> str:
    """Of a process that writes no more: a signal nobody here sent often means that memory ran out."""
    try:
        status = await asyncio.wait_for(process.wait(), _KILL_AFTER_S)
    except TimeoutError:
        return "it closed its output"
    return f"it was ended by signal {-status}" if status < 0 else f"it ended with status {status}"


async def _end(process: Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        if process.stdin is not None:
            process.stdin.close()
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _KILL_AFTER_S)
        except TimeoutError:
            process.kill()
            await process.wait()
