"""The worker process: runs one blocking engine for many streams.

`python -m realtime.adapters.embedded.worker_main package.module:function` reads frames from stdin and
writes frames to stdout. One thread reads, so that a cancel is seen while the engine is at work; the
main thread gives every stream one bounded step in turn. It must never outlive the server: it ends
when its stdin ends, and where the system can do it, it is killed with its parent. What an engine's
library prints goes to stderr, never between the frames. Interrupts are the server's business.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any, BinaryIO, Final, Protocol

from realtime.adapters.base import EngineError
from realtime.adapters.embedded.frames import HEADER, Frame, FrameError, Kind, following, parse

_PR_SET_PDEATHSIG: Final = 1


class Job(Protocol):
    """One stream in the worker."""

    def data(self, payload: bytes) -> None: ...

    def finish(self) -> None: ...

    def step(self) -> bool:
        """A bounded piece of work (tens of milliseconds). False: nothing to do until more comes."""

    def close(self) -> None:
        """The stream is over, or was cancelled."""


class Engine(Protocol):
    def describe(self) -> Mapping[str, Any]: ...

    def open(self, head: Mapping[str, Any], body: bytes, out: Output) -> Job: ...


class Output:
    """What a job has to say. Never more items are on the way than the other side asked for."""

    def __init__(self, pipe: Pipe, stream: int, credit: int) -> None:
        self._pipe = pipe
        self._stream = stream
        self._credit = credit
        self._waiting: deque[Frame] = deque()
        self.over = False

    @property
    def cancelled(self) -> bool:
        """May become true at any time, while the job is at work."""
        return self._stream in self._pipe.cancelled

    @property
    def blocked(self) -> bool:
        return bool(self._waiting)

    def item(self, head: Mapping[str, Any], body: bytes = b"", *, droppable: bool = False) -> None:
        """`droppable`: worth nothing when the reader is behind."""
        frame = Frame(Kind.ITEM, self._stream, dict(head), body)
        if self._credit > 0 and not self._waiting:
            self._credit -= 1
            self._pipe.write(frame)
        elif not droppable:
            self._waiting.append(frame)

    def taken(self, count: int) -> None:
        self._pipe.write(Frame(Kind.TAKEN, self._stream, {"n": count}))

    def end(self) -> None:
        self._last(Frame(Kind.END, self._stream))

    def fail(self, code: str, message: str) -> None:
        self._waiting.clear()
        self._last(Frame(Kind.FAILED, self._stream, {"code": code, "message": message[:500]}))

    def grant(self, count: int) -> None:
        self._credit += count
        self.flush()

    def flush(self) -> None:
        while self._waiting and (self._credit > 0 or self._waiting[0].kind is not Kind.ITEM):
            self._credit -= 1
            self._pipe.write(self._waiting.popleft())

    def _last(self, frame: Frame) -> None:
        if not self.over:
            self.over = True
            self._waiting.append(frame)
            self.flush()


class Pipe:
    """Frames from and to the server."""

    def __init__(self, source: BinaryIO, sink: BinaryIO) -> None:
        self._source = source
        self._sink = sink
        self.inbox: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self.cancelled: set[int] = set()

    def write(self, frame: Frame) -> None:
        try:
            self._sink.write(frame.serialize())
            self._sink.flush()
        except OSError:
            os._exit(0)

    def read(self) -> Frame | None:
        header = self._source.read(HEADER.size)
        if len(header) < HEADER.size:
            return None
        return parse(header, self._source.read(following(header)))

    def read_for_ever(self) -> None:
        """The reading thread. The server bounds what it sends, so the inbox is bounded too."""
        status = 0
        try:
            while (frame := self.read()) is not None:
                if frame.kind is Kind.CANCEL:
                    self.cancelled.add(frame.stream)
                self.inbox.put(frame)
        except (OSError, FrameError):
            status = 1
        # The server is gone: nothing is worth finishing, and the main thread may be deep in a C library.
        os._exit(status)


class Streams:
    """The open streams of the worker, each with its job."""

    def __init__(self, engine: Engine, pipe: Pipe) -> None:
        self._engine = engine
        self._pipe = pipe
        self._open: dict[int, tuple[Job, Output]] = {}

    def run(self) -> None:
        busy = False
        while True:
            try:
                while True:
                    self._handle(self._pipe.inbox.get(block=not busy))
                    busy = True
            except queue.Empty:
                busy = self._step()

    def _handle(self, frame: Frame) -> None:
        if frame.kind is Kind.OPEN:
            self._begin(frame)
        elif frame.kind is Kind.PING:
            self._pipe.write(Frame(Kind.PONG))
        elif frame.kind is Kind.CANCEL:
            self._drop(frame.stream)
            self._pipe.cancelled.discard(frame.stream)
        elif frame.stream in self._open:
            job, out = self._open[frame.stream]
            if frame.kind is Kind.DATA:
                job.data(frame.body)
            elif frame.kind is Kind.FINISH:
                job.finish()
            elif frame.kind is Kind.CREDIT:
                out.grant(int(frame.head.get("n", 0)))

    def _begin(self, frame: Frame) -> None:
        out = Output(self._pipe, frame.stream, int(frame.head.get("credit", 0)))
        try:
            self._open[frame.stream] = (self._engine.open(frame.head, frame.body, out), out)
        except Exception as error:
            _report(out, error)

    def _step(self) -> bool:
        """One step of every stream. False: all wait for something from the server."""
        busy = False
        for number, (job, out) in list(self._open.items()):
            if not out.cancelled and not out.over and not out.blocked:
                try:
                    busy = job.step() or busy
                except Exception as error:
                    _report(out, error)
            if out.cancelled or (out.over and not out.blocked):
                self._drop(number)
        return busy

    def _drop(self, number: int) -> None:
        job, _ = self._open.pop(number, (None, None))
        if job is not None:
            job.close()


def _report(out: Output, error: Exception) -> None:
    code = error.code if isinstance(error, EngineError) else "engine_error"
    out.fail(code, f"{type(error).__name__}: {error}")


def separate_stdout() -> BinaryIO:
    """Frames keep the real stdout; what libraries print goes to stderr."""
    frames = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return frames


def die_with(parent: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(0)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sink = separate_stdout()
    pipe = Pipe(sys.stdin.buffer, sink)
    hello = pipe.read()
    if hello is None:
        return
    die_with(int(hello.head.get("parent", 0)))
    module, _, function = sys.argv[1].partition(":")
    try:
        engine: Engine = getattr(importlib.import_module(module), function)(hello.head.get("options", {}))
        pipe.write(Frame(Kind.READY, 0, dict(engine.describe())))
    except Exception as error:
        pipe.write(Frame(Kind.FAILED, 0, {"code": "worker_failed", "message": f"{type(error).__name__}: {error}"}))
        return
    threading.Thread(target=pipe.read_for_ever, daemon=True, name="reader").start()
    Streams(engine, pipe).run()


if __name__ == "__main__":
    main()
