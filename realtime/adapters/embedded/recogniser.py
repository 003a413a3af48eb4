"""The embedded recogniser: pocketsphinx in worker processes, or an honest notice that there is none.

One worker holds one decoder, which hears one speaker at a time: it is taken when the first audio of
an utterance comes and given back with its end. Who finds none free waits in order, bounded, while the
audio is kept. What was learnt of a speaker (`SttOptions.session`) stays under that session, bounded.
It must never invent a transcript, nor let one speaker's adaptation reach another.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from media.audio import RATE_IN, Pcm
from realtime.adapters.base import EngineError, EngineInfo, SpeechToText, SttOptions, Transcript
from realtime.adapters.embedded.worker import Worker, WorkerLimits, WorkerState, WorkerStream

_ENGINE = "realtime.adapters.embedded.pocketsphinx_engine:load"
_SESSIONS = 512
"""Speakers remembered, the least recent forgotten first: about 200 bytes each."""
_INSTALL = "pip install 'infrai-realtime[local]', or set [live] stt"


@dataclass(frozen=True, slots=True)
class RecogniserLimits:
    """`decoders`: None for one, or two where four cores are. `waiting`: utterances that wait for a decoder."""

    decoders: int | None = None
    waiting: int = 8
    waiting_seconds: float = 20.0
    utterance_seconds: float = 60.0

    @property
    def workers(self) -> int:
        return self.decoders or (2 if (os.cpu_count() or 1) >= 4 else 1)


@dataclass(frozen=True, slots=True)
class Speaker:
    """What a decoder has learnt of one speaker: the channel's cepstral mean, and the loudest sample."""

    cmn: str
    peak: int


class Decoders:
    """The workers, each with one decoder, lent in the order in which they were asked for."""

    def __init__(self, limits: RecogniserLimits, worker_limits: WorkerLimits | None) -> None:
        self.workers = [Worker(_ENGINE, limits=worker_limits) for _ in range(limits.workers)]
        self._limits = limits
        self._free = list(self.workers)
        self._waiting: deque[asyncio.Future[Worker]] = deque()

    async def take(self) -> Worker:
        if self._free and not self._waiting:
            # One that is being restarted comes last.
            self._free.sort(key=lambda worker: worker.state is not WorkerState.READY)
            return self._free.pop(0)
        if len(self._waiting) >= self._limits.waiting:
            raise self._busy(f"{len(self._waiting)} speakers wait already")
        turn: asyncio.Future[Worker] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            return await asyncio.wait_for(turn, self._limits.waiting_seconds)
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.give(turn.result())
            if isinstance(error, TimeoutError):
                raise self._busy(f"no decoder within {self._limits.waiting_seconds:.0f} s") from None
            raise
        finally:
            with contextlib.suppress(ValueError):
                self._waiting.remove(turn)

    def give(self, worker: Worker) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(worker)
                return
        self._free.append(worker)

    @staticmethod
    def _busy(detail: str) -> EngineError:
        return EngineError(f"the recogniser is busy: {detail}", code="recogniser_busy", engine="embedded")


class Recogniser:
    """A `SpeechToText`. `pids`: its worker processes."""

    def __init__(self, limits: RecogniserLimits | None = None, *, worker_limits: WorkerLimits | None = None) -> None:
        self.limits = limits or RecogniserLimits()
        self._decoders = Decoders(self.limits, worker_limits)
        self._speakers: OrderedDict[str, Speaker] = OrderedDict()
        self._info = EngineInfo(
            name="embedded",
            kind="stt",
            vendor="embedded",
            model="pocketsphinx en-us",
            licence="BSD-2-Clause",
            quality="smoke test only: US English, about one word in three wrong on natural speech",
        )

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self._decoders.workers if worker.pid is not None]

    async def start(self) -> None:
        await asyncio.gather(*(worker.start() for worker in self._decoders.workers))
        version = self._decoders.workers[0].described.get("version")
        self._info = replace(self._info, version=str(version) if version else None)

    async def close(self) -> None:
        await asyncio.gather(*(worker.close() for worker in self._decoders.workers))

    @asynccontextmanager
    async def stream(self, options: SttOptions) -> AsyncIterator[RecogniserStream]:
        stream = RecogniserStream(self, options.session)
        try:
            yield stream
        finally:
            await stream.close()

    def speaker(self, session: str) -> Speaker | None:
        return self._speakers.get(session)

    def learn(self, session: str, speaker: Speaker) -> None:
        if session:
            self._speakers[session] = speaker
            self._speakers.move_to_end(session)
            while len(self._speakers) > _SESSIONS:
                self._speakers.popitem(last=False)


class RecogniserStream:
    """A `TranscriptStream`. Of the partials that nobody has read only the newest is kept."""

    def __init__(self, recogniser: Recogniser, session: str) -> None:
        self._recogniser = recogniser
        self._session = session
        self._capacity = int(recogniser.limits.utterance_seconds * RATE_IN) * 2
        self._pushed = 0
        self._backlog: list[bytes] = []
        self._worker_stream: WorkerStream | None = None
        self._task: asyncio.Task[None] | None = None
        self._finished = False
        self._partial: Transcript | None = None
        self._outcome: Transcript | EngineError | None = None
        self._told = False
        self._closed = False
        self._changed = asyncio.Event()

    def push(self, pcm: Pcm) -> None:
        if self._finished or self._closed or isinstance(self._outcome, EngineError) or not len(pcm):
            return
        data = pcm.tobytes()
        if self._pushed + len(data) > self._capacity:
            raise self._overflow()
        self._pushed += len(data)
        if self._worker_stream is None:
            self._backlog.append(data)
            if self._task is None:
                self._task = asyncio.create_task(self._recognise())
        elif not self._worker_stream.send(data) and not self._worker_stream.over:
            raise self._overflow()

    def finish(self) -> None:
        if self._finished or self._closed:
            return
        self._finished = True
        if self._task is None:
            self._settle(Transcript("", final=True))
        elif self._worker_stream is not None:
            self._worker_stream.finish()

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        while not self._closed and not self._told:
            self._changed.clear()
            if self._partial is not None and self._outcome is None:
                partial, self._partial = self._partial, None
                yield partial
            elif self._outcome is None:
                await self._changed.wait()
            else:
                self._told = True
                if isinstance(self._outcome, EngineError):
                    raise self._outcome
                yield self._outcome

    async def close(self) -> None:
        self._closed = True
        self._changed.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._backlog.clear()

    async def _recognise(self) -> None:
        """Wait for a decoder, give it what was kept, pass on what it says, give it back."""
        decoders = self._recogniser._decoders
        try:
            worker = await decoders.take()
            try:
                await self._decode(worker)
            finally:
                if self._worker_stream is not None:
                    self._worker_stream.close()
                decoders.give(worker)
        except EngineError as error:
            self._settle(error)

    async def _decode(self, worker: Worker) -> None:
        speaker = self._recogniser.speaker(self._session)
        known = {"cmn": speaker.cmn, "peak": speaker.peak} if speaker else {}
        stream = self._worker_stream = await worker.open(known)
        backlog, self._backlog = self._backlog, []
        for data in backlog:
            stream.send(data)
        if self._finished:
            stream.finish()
        while (item := await stream.receive()) is not None:
            text = str(item.head.get("text", ""))
            if item.head.get("final"):
                self._recogniser.learn(self._session, Speaker(str(item.head["cmn"]), int(item.head["peak"])))
                self._settle(Transcript(text, final=True))
                return
            self._partial = Transcript(text, final=False)
            self._changed.set()
        raise EngineError("the recogniser ended without a result", code="engine_error", engine="embedded")

    def _settle(self, outcome: Transcript | EngineError) -> None:
        if self._outcome is None:
            self._outcome = outcome
        self._changed.set()

    def _overflow(self) -> EngineError:
        seconds = self._recogniser.limits.utterance_seconds
        return EngineError(
            f"more than {seconds:.0f} s of audio wait for the recogniser", code="overflow", engine="embedded"
        )


class NoRecogniser:
    """A `SpeechToText` for installations without one: says how much speech it heard, and what to install."""

    info = EngineInfo(
        name="embedded",
        kind="stt",
        vendor="embedded",
        model="none",
        quality=f"no recogniser is installed: {_INSTALL}",
    )

    @property
    def pids(self) -> list[int]:
        return []

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to end."""

    @asynccontextmanager
    async def stream(self, options: SttOptions) -> AsyncIterator[NoticeStream]:
        stream = NoticeStream()
        try:
            yield stream
        finally:
            stream.close()


class NoticeStream:
    """A `TranscriptStream` that counts seconds."""

    def __init__(self) -> None:
        self._samples = 0
        self._over = asyncio.Event()
        self._finished = False
        self._closed = False

    def push(self, pcm: Pcm) -> None:
        if not self._finished:
            self._samples += len(pcm)

    def finish(self) -> None:
        self._finished = True
        self._over.set()

    def close(self) -> None:
        self._closed = True
        self._over.set()

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        await self._over.wait()
        if self._finished and not self._closed:
            self._closed = True
            seconds = self._samples / RATE_IN
            text = f"[{seconds:.1f} seconds of speech; no recogniser is installed: {_INSTALL}]"
            yield Transcript(text, final=True, spoken=False)


def installed() -> bool:
    """Whether pocketsphinx is there, without importing it."""
    return importlib.util.find_spec("pocketsphinx") is not None


def recogniser(limits: RecogniserLimits | None = None) -> SpeechToText:
    """The best embedded recogniser of this installation."""
    return Recogniser(limits) if installed() else NoRecogniser()
