"""The recordings of all calls: begun with a call, written by one process, kept in the file store, deleted again.

Nothing here may end a call or hold one up: what a call gives is appended in memory, once in half a second
its own task passes on what is due, and a writer that dies, is full or is behind costs sound of the recording
and is told in the log, the metrics and the recording's own record.

    WRITING --writer died--> WRITING (a further stream in the same file), a few times
    WRITING --call ended--> KEPT;   WRITING --disk full, writer lost--> FAILED;   any --deleted--> DELETED
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol

import orjson

from media.audio import Pcm
from media.playout import Playout
from realtime.adapters.base import EngineError
from realtime.adapters.embedded.worker import Worker, WorkerLimits, WorkerStream
from realtime.observe.metrics import Metrics
from realtime.recording import writer
from realtime.recording.tracks import Block, Tracks
from realtime.store.base import Store

ROUND_S = 0.4, 0.6
"""Between two rounds of passing on what is due: never the same, so that calls that began together part."""

AT_ONCE = 4
"""Blocks of a second that are passed on in one go, less than a millisecond's work."""

ATTEMPTS = 4
"""Writers that one recording may use up."""

FINISH_S = 60.0
"""Seconds for the end of a recording to be written, and again to be kept: a disk may be slow, a bucket far away."""

LINK_S = 86_400.0
"""How long a link lasts."""

MIME = "audio/ogg"

_LIMITS = WorkerLimits(streams=2000, unread_bytes=4 << 20, stall_seconds=30.0)
_WRITER = "realtime.recording.writer:load"

log = logging.getLogger("realtime.recording")


class FileStore(Protocol):
    """Where whole recordings are kept."""

    async def adopt(self, path: Path, mime: str, *, seconds: float) -> str:
        """Take the file over, for so long; its id. Raises."""

    async def url(self, base: str, id_: str, *, seconds: float | None = None) -> str:
        """Where it can be fetched, until the URL expires."""

    async def delete(self, id_: str) -> None:
        """Idempotent."""


class State(Enum):
    WRITING = "writing"
    KEPT = "kept"
    FAILED = "failed"
    DELETED = "deleted"


@dataclass(frozen=True, slots=True)
class Wish:
    """What an agent's settings want of the recordings of its calls. `seconds`: how long they are kept."""

    seconds: float
    by_caller: bool = False
    """The caller's own client may pause and resume."""


class Recording:
    """Of one call. What it is told is told synchronously and costs microseconds."""

    def __init__(self, session: str, path: Path, wish: Wish, worker: Worker, metrics: Metrics) -> None:
        self.session = session
        self.wish = wish
        self.state = State.WRITING
        self.failure: str | None = None
        self.path = path
        self._lost_ms = 0
        self._missing_ms = 0
        """Lost since the last block that was sent; silence stands for it."""
        self._is_paused = False
        self._worker = worker
        self._metrics = metrics
        self._tracks: Tracks | None = None
        self._over = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._write(), name=f"{session}:recording")

    # --- what the call tells ------------------------------------------------------------------

    def tap(self, playout: Playout) -> None:
        """Hear what leaves `playout`, beside whoever does already."""
        before = playout.tap

        def hear(pcm: Pcm, at: float) -> None:
            if before is not None:
                before(pcm, at)
            if self._tracks is not None and not self._over.is_set():
                self._tracks.bot(pcm, at)

        playout.tap = hear
        playout.untap = self._discard

    def opened(self) -> None:
        """Sound can flow: time begins."""
        if self._tracks is None:
            self._tracks = Tracks(time.monotonic())
            if self._is_paused:
                self.pause()

    def caller(self, pcm: Pcm, arrived_at: float) -> None:
        if self._tracks is not None and not self._over.is_set():
            self._tracks.caller(pcm, arrived_at)

    def _discard(self, at: float) -> None:
        if self._tracks is not None:
            self._tracks.discard(at)

    @property
    def is_paused(self) -> bool:
        return self._is_paused

    @property
    def has_begun(self) -> bool:
        return self._tracks is not None

    def pause(self) -> None:
        """From now on nothing is recorded; time goes on. Idempotent, as is `resume`."""
        self._is_paused = True
        if self._tracks is not None:
            self._tracks.pause(time.monotonic())

    def resume(self) -> None:
        self._is_paused = False
        if self._tracks is not None:
            self._tracks.resume(time.monotonic())

    # --- writing ------------------------------------------------------------------------------

    async def _write(self) -> None:
        for _ in range(ATTEMPTS):
            try:
                written_ms = self._tracks.length_ms - self._missing_ms if self._tracks is not None else 0
                stream = await self._worker.open({"path": str(self.path), "at_ms": written_ms})
            except EngineError as error:
                self._fail(error)
                return
            try:
                await self._pass_on(stream)
                return
            except EngineError as error:
                if error.code not in ("worker_died", "worker_closed"):
                    self._fail(error)
                    return
                log.warning("session=%s the writer of recordings died; another one goes on", self.session)
                self._metrics.recording_trouble("writer_died")
            finally:
                stream.close()
        self._fail(EngineError("no writer lives long enough", code="writer_lost"))

    async def _pass_on(self, stream: WorkerStream) -> None:
        """Until the call is over. Raises `EngineError` when the writer cannot go on."""
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), random.uniform(*ROUND_S))
            if stream.over:
                await stream.receive()  # raises what ended it
            if self._tracks is not None:
                await self._hand_out(stream, self._tracks.take)
        if self._tracks is not None:
            await self._hand_out(stream, self._tracks.finish)
        stream.finish()
        try:
            async with asyncio.timeout(FINISH_S):
                while (item := await stream.receive()) is not None:
                    self._lost_ms += int(item.head.get("lost_ms", 0))
        except TimeoutError:
            raise EngineError(f"its end is not written after {FINISH_S:.0f} s", code="behind") from None

    async def _hand_out(self, stream: WorkerStream, take: Callable[[float, int], list[Block]]) -> None:
        """All that is due, a little at a time: while a writer was away, a minute may have gathered."""
        now = time.monotonic()
        while blocks := take(now, AT_ONCE):
            self._send(stream, blocks)
            await asyncio.sleep(0)

    def _send(self, stream: WorkerStream, blocks: list[Block]) -> None:
        for block in blocks:
            if stream.send(writer.pack(block, self._missing_ms)):
                self._missing_ms = 0
            else:
                if not self._missing_ms:
                    log.error("session=%s the writer of recordings is behind: sound is lost", self.session)
                    self._metrics.recording_trouble("behind")
                self._missing_ms += block.ms
                self._lost_ms += block.ms

    def _fail(self, error: EngineError) -> None:
        self.state, self.failure = State.FAILED, error.code
        self._over.set()
        log.error("session=%s is not recorded any further: %s (%s)", self.session, error, error.code)
        self._metrics.recording_trouble(error.code)

    async def close(self) -> None:
        """The call is over, or it is to be recorded no longer: the file is complete when this returns."""
        self._over.set()
        await asyncio.wait([self._task])

    def facts(self) -> dict[str, Any]:
        tracks = self._tracks
        return {
            "seconds": round(tracks.length_ms / 1000, 3) if tracks else 0.0,
            "paused_seconds": round(tracks.paused_ms / 1000, 3) if tracks else 0.0,
            "lost_seconds": round((self._lost_ms + (tracks.dropped_ms if tracks else 0)) / 1000, 3),
            "failure": self.failure,
        }


class Recordings:
    """`folder`: where recordings are while they are written. `base`: how this server is reached from outside."""

    def __init__(
        self,
        folder: Path,
        files: FileStore,
        store: Store,
        metrics: Metrics,
        base: Callable[[], Awaitable[str]],
    ) -> None:
        self._folder = folder
        self._files = files
        self._store = store
        self._metrics = metrics
        self._base = base
        self._worker = Worker(_WRITER, limits=_LIMITS)
        self._under_way: dict[str, Recording] = {}

    async def start(self, *, wanted: bool) -> None:
        """`wanted`: some agent records. What an earlier life of this process left unfinished is kept as it is."""
        # Here and in threads, because a disk may be slow.
        await asyncio.to_thread(self._folder.mkdir, mode=0o700, parents=True, exist_ok=True)
        for path in sorted(self._folder.glob("sess_*.ogg")):
            await self._recover(path)
        if wanted:
            await self._worker.start()

    async def close(self) -> None:
        await self._worker.close()

    def begin(self, session: str, wish: Wish, playout: Playout) -> Recording:
        path = self._folder / f"{session}.{wish.seconds:.0f}.ogg"
        recording = Recording(session, path, wish, self._worker, self._metrics)
        recording.tap(playout)
        self._under_way[session] = recording
        return recording

    async def finish(self, recording: Recording) -> dict[str, Any] | None:
        """The call is over: keep its file. What webhooks and the record tell of it; None when it was deleted."""
        await recording.close()
        self._under_way.pop(recording.session, None)
        if recording.state is State.DELETED or not recording.has_begun:
            await asyncio.to_thread(recording.path.unlink, missing_ok=True)
            return None
        record = await self._keep(recording.session, recording.path, recording.wish.seconds, recording.facts())
        if record is None:
            return {"status": "failed", **recording.facts()}
        if recording.state is State.WRITING:
            recording.state = State.KEPT
        return await self._shown(record)

    async def _keep(self, session: str, path: Path, seconds: float, facts: dict[str, Any]) -> dict[str, Any] | None:
        try:
            facts["bytes"] = await asyncio.to_thread(os.path.getsize, path)
            if not facts["bytes"]:
                return None  # the writer never got that far, and why is in the log
            async with asyncio.timeout(FINISH_S):
                file = await self._files.adopt(path, MIME, seconds=seconds)
            record = {**facts, "file": file, "keep_until": round(time.time() + seconds, 3)}
            await self._store.put(_key(session), orjson.dumps(record), ttl=seconds)
        except Exception as error:
            # Whatever the file store's own client raises: the call's record is to be written all the same.
            if getattr(error, "code", None) == "storage_full":
                await asyncio.to_thread(path.unlink, missing_ok=True)
                log.error("session=%s its recording is not kept: %s", session, error)
            else:
                log.error("session=%s its recording waits in %s for the next start: %s", session, path, error)
            self._metrics.recording_trouble("not_kept")
            return None
        return record

    async def _recover(self, path: Path) -> None:
        session, _, seconds = path.stem.partition(".")
        log.warning("session=%s its recording was left unfinished and is kept as it is", session)
        facts = {"seconds": None, "paused_seconds": None, "lost_seconds": None, "failure": "interrupted"}
        if not seconds.isdecimal() or await self._keep(session, path, float(seconds), facts) is None:
            await asyncio.to_thread(path.unlink, missing_ok=True)

    # --- by the API ---------------------------------------------------------------------------

    def under_way(self, session: str) -> Recording | None:
        return self._under_way.get(session)

    async def find(self, session: str) -> dict[str, Any] | None:
        """The recording of a call that is over, with a fresh link."""
        kept = await self._store.get(_key(session))
        record = orjson.loads(kept) if kept is not None else None
        return await self._shown(record) if record is not None and "file" in record else None

    async def delete(self, session: str) -> None:
        """For good; a recording under way ends with this. Idempotent."""
        recording = self._under_way.get(session)
        if recording is not None:
            recording.state = State.DELETED
            await recording.close()
            await asyncio.to_thread(recording.path.unlink, missing_ok=True)
        kept = await self._store.get(_key(session))
        if kept is not None:
            file = orjson.loads(kept).get("file")
            if file is not None:
                await self._files.delete(file)
            await self._store.delete(_key(session))

    async def _shown(self, record: dict[str, Any]) -> dict[str, Any]:
        left = record["keep_until"] - time.time()
        seconds = max(1.0, min(LINK_S, left))
        shown = {name: value for name, value in record.items() if name != "file"}
        url = await self._files.url(await self._base(), record["file"], seconds=seconds)
        status = "complete" if not record["failure"] and not record["lost_seconds"] else "incomplete"
        return {"status": status, "url": url, "url_expires_at": round(time.time() + seconds, 3), **shown}


def _key(session: str) -> str:
    return f"recording:{session}"
