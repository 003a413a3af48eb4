"""The process of one engine of the user's own: `python -m realtime.adapters.custom.main module:Class`.

Reads frames from stdin and writes frames to stdout, as `worker_main` does, but the engine is asynchronous:
the main thread runs its event loop, a second one reads. What the engine raises ends one stream and is
written, with its traceback, to stderr, which the server logs. An engine that blocks its loop is named by
file and line there, and killed by the server when it goes on. The process never outlives the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from realtime.adapters.base import EngineError, SttOptions, TranscriptStream
from realtime.adapters.custom import wire
from realtime.adapters.embedded.frames import Frame, FrameError, Kind
from realtime.adapters.embedded.worker_main import Pipe, die_with, separate_stdout
from realtime.mistakes import suggest

CLOSE_S = 0.7
"""Seconds for the engine's `close`; the server kills after one."""


class Stream:
    """One question under way."""

    def __init__(self, host: Host, number: int, head: Mapping[str, Any], body: bytes) -> None:
        self._host = host
        self._number = number
        self._credit = int(head.get("credit", 0))
        self._granted = asyncio.Event()
        self._heard: TranscriptStream | None = None
        self._early: list[bytes] = []
        self._finished = False
        self._refused: EngineError | None = None
        self.task = asyncio.get_running_loop().create_task(self._run(body))

    # --- from the server ----------------------------------------------------------------------

    def data(self, body: bytes) -> None:
        self._host.pipe.write(Frame(Kind.TAKEN, self._number, {"n": len(body)}))
        if self._heard is None:
            self._early.append(body)
        else:
            self._push(body)

    def finish(self) -> None:
        self._finished = True
        if self._heard is not None:
            self._guarded(self._heard.finish)

    def grant(self, count: int) -> None:
        self._credit += count
        self._granted.set()

    # --- the engine's work --------------------------------------------------------------------

    async def _run(self, body: bytes) -> None:
        try:
            question = wire.unpack(body)
            await {"chat": self._chat, "tts": self._speech, "stt": self._transcripts}[self._host.kind](question)
            self._last(Frame(Kind.END, self._number))
        except EngineError as error:
            self._fail(self._refused or error)
        except asyncio.CancelledError:
            pass
        except Exception as error:
            if self._refused is not None:
                self._fail(self._refused)
            else:
                traceback.print_exc()
                self._fail(EngineError(_described(error)))
        finally:
            self._host.streams.pop(self._number, None)

    async def _chat(self, request: Any) -> None:
        async with self._host.engine.stream(request) as deltas:
            async for delta in deltas:
                item = wire.pack_delta(delta)
                await self._item(*item)
                if item[0]["t"] == "end":
                    return
        raise wire.NotTheContract("a chat model's last delta is ChatEnd")

    async def _speech(self, request: Any) -> None:
        async with self._host.engine.stream(request) as chunks:
            async for chunk in chunks:
                for item in wire.pack_chunk(chunk):
                    await self._item(*item)

    async def _transcripts(self, options: SttOptions) -> None:
        async with self._host.engine.stream(options) as stream:
            self._heard = stream
            for data in self._early:
                self._push(data)
            self._early.clear()
            if self._finished:
                self._guarded(stream.finish)
            async for transcript in stream:
                await self._item(*wire.pack_transcript(transcript))
                if transcript.final:
                    return
        raise wire.NotTheContract("a recogniser's last transcript is final")

    def _push(self, data: bytes) -> None:
        stream = self._heard
        assert stream is not None
        self._guarded(lambda: stream.push(np.frombuffer(data, np.int16)))

    def _guarded(self, call: Callable[[], None]) -> None:
        """Audio that the recogniser refuses ends its stream."""
        try:
            call()
        except EngineError as error:
            self._refused = error
        except Exception as error:
            traceback.print_exc()
            self._refused = EngineError(_described(error))
        if self._refused is not None:
            self._fail(self._refused)
            self.task.cancel()

    async def _item(self, head: dict[str, Any], body: bytes) -> None:
        while self._credit <= 0:
            self._granted.clear()
            await self._granted.wait()
        self._credit -= 1
        self._last(Frame(Kind.ITEM, self._number, head, body))

    def _fail(self, error: EngineError) -> None:
        head = {"code": error.code, "message": str(error)[:500], "retryable": error.retryable}
        self._last(Frame(Kind.FAILED, self._number, head))

    def _last(self, frame: Frame) -> None:
        if self._number in self._host.streams:
            self._host.pipe.write(frame)


class Host:
    """The engine and the streams open on it."""

    def __init__(self, engine: Any, kind: str, pipe: Pipe) -> None:
        self.engine = engine
        self.kind = kind
        self.pipe = pipe
        self.streams: dict[int, Stream] = {}
        self.over = asyncio.Event()

    def handle(self, frame: Frame) -> None:
        if frame.kind is Kind.PING:
            self.pipe.write(Frame(Kind.PONG))
        elif frame.kind is Kind.OPEN:
            self.streams[frame.stream] = Stream(self, frame.stream, frame.head, frame.body)
        elif (stream := self.streams.get(frame.stream)) is not None:
            if frame.kind is Kind.DATA:
                stream.data(frame.body)
            elif frame.kind is Kind.FINISH:
                stream.finish()
            elif frame.kind is Kind.CREDIT:
                stream.grant(int(frame.head.get("n", 0)))
            elif frame.kind is Kind.CANCEL:
                del self.streams[frame.stream]
                stream.task.cancel()


class Reader:
    """The second thread: frames to the loop, and where the loop stands when it answers no pings."""

    def __init__(self, pipe: Pipe, host: Host, loop: asyncio.AbstractEventLoop) -> None:
        self._pipe = pipe
        self._host = host
        self._loop = loop
        self._main = threading.get_ident()
        self._pings = 0

    def run(self) -> None:
        with contextlib.suppress(OSError, FrameError, RuntimeError):
            while (frame := self._pipe.read()) is not None:
                if frame.kind is Kind.PING:
                    self._pings += 1
                    if self._pings > 1:
                        self._tell_where()
                self._loop.call_soon_threadsafe(self._handle, frame)
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._host.over.set)
        # The loop may be blocked for ever, and nobody waits for it any more.
        threading.Event().wait(2 * CLOSE_S)
        os._exit(0)

    def _handle(self, frame: Frame) -> None:
        if frame.kind is Kind.PING:
            self._pings -= 1
        self._host.handle(frame)

    def _tell_where(self) -> None:
        frame = sys._current_frames().get(self._main)
        lines = [line for line in traceback.extract_stack(frame) if line.filename != __file__] if frame else []
        if lines:
            at = lines[-1]
            own = [line for line in lines if "site-packages" not in line.filename and "asyncio" not in line.filename]
            at = next((line for line in reversed(own) if not line.filename.startswith(sys.prefix)), at)
            print(f"blocks its event loop at {at.filename}:{at.lineno} in {at.name}", file=sys.stderr, flush=True)


def _described(error: BaseException) -> str:
    """Without the error's own words: callers are told this, the log has the rest."""
    if isinstance(error, wire.NotTheContract):
        return str(error)
    own = [step for step in traceback.extract_tb(error.__traceback__) if step.filename != __file__]
    at = f" at {os.path.basename(own[-1].filename)}:{own[-1].lineno}" if own else ""
    return f"it raised {type(error).__name__}{at}"


PARTS = {
    "chat": ("info", "stream", "close"),
    "stt": ("info", "stream", "close"),
    "tts": ("info", "stream", "close", "voices"),
}
"""What an engine of each kind has once it has started (`realtime.adapters.base`)."""


def find(spec: str) -> Any:
    """The class or function that `module:Class` names. Raises whatever importing it does."""
    module_name, _, name = spec.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # it is there, and misses another one
        where = f"put {module_name.replace('.', '/')}.py into the folder where the server is started ({os.getcwd()})"
        raise ImportError(f"there is no module {module_name}; {where}, or install it") from None
    classes = [
        name for name, value in vars(found).items() if isinstance(value, type) and value.__module__ == module_name
    ]
    for part in name.split("."):
        if not hasattr(found, part):
            raise ImportError(f"{module_name} has no {name}; {suggest(name, classes, 'its classes')}")
        found = getattr(found, part)
    if not callable(found):
        raise ImportError(f"{name} of {module_name} is no class; write python:module:Class")
    return found


def _held_to(engine: Any, kind: str, spec: str, parts: Sequence[str]) -> None:
    """Raises `NotTheContract` for what is no engine at all."""
    missing = [name for name in parts if not hasattr(engine, name)]
    if missing:
        text = (
            f"{spec} makes no engine for {kind}: it has no {', '.join(missing)}; docs/engines.md has one to start from"
        )
        raise wire.NotTheContract(text)


async def _serve(pipe: Pipe, spec: str, given: Mapping[str, Any]) -> None:
    kind = str(given["kind"])
    try:
        engine = find(spec)(**given["options"])
        _held_to(engine, kind, spec, ("info", "start"))
        info = engine.info
        if info.kind != kind:
            raise wire.NotTheContract(f"its info.kind is {info.kind!r}, and it is used as {kind!r}")
        await engine.start()
        _held_to(engine, kind, spec, PARTS[kind])
        info = engine.info
        described = {name: getattr(info, name) for name in ("version", "licence", "quality")}
        described["voices"] = [str(voice) for voice in engine.voices][:1000] if kind == "tts" else []
        pipe.write(Frame(Kind.READY, 0, described))
    except (Exception, SystemExit) as error:
        traceback.print_exc()
        reason = "".join(traceback.format_exception_only(error)).strip()
        pipe.write(Frame(Kind.FAILED, 0, {"code": "engine_failed", "message": reason[-500:]}))
        return
    host = Host(engine, kind, pipe)
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError, ValueError):
        loop.add_signal_handler(signal.SIGTERM, host.over.set)
    threading.Thread(target=Reader(pipe, host, loop).run, daemon=True, name="reader").start()
    await host.over.wait()
    with contextlib.suppress(Exception):
        await asyncio.wait_for(engine.close(), CLOSE_S)


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sink = separate_stdout()
    pipe = Pipe(sys.stdin.buffer, sink)
    hello = pipe.read()
    if hello is None:
        return
    die_with(int(hello.head.get("parent", 0)))
    sys.path.append(os.getcwd())
    asyncio.run(_serve(pipe, sys.argv[1], hello.head["options"]))
    os._exit(0)


if __name__ == "__main__":
    main()
