"""Server-sent events and streamed audio: a recording that one task writes and a response that follows it.

The writer puts chunks into a `Recording`; the response sends what is there, a comment when nothing came
for a while, and stops when the recording ends. Because they are apart, a keyed stream is finished when
its caller leaves, and an unkeyed one is cancelled at once. A stream that failed ends with an `error` event
and without `[DONE]`. Wire format: WHATWG HTML, server-sent events.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

KEEP_ALIVE_S = 15.0
"""Seconds of silence before a comment: proxies give up after 30 to 60."""

DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
"""nginx would else hold events back."""


def event(data: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"


def error_event(data: dict[str, Any]) -> bytes:
    return b"event: error\ndata: " + orjson.dumps(data) + b"\n\n"


class Recording:
    """Chunks of one stream, in order. Written by one task, followed by any number."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.ended = False
        self.failed: BaseException | None = None
        """Why it ended before it was whole, where the chunks themselves cannot say so."""
        self._waiting: list[asyncio.Future[None]] = []

    def add(self, chunk: bytes) -> None:
        self.chunks.append(chunk)
        if self._waiting:
            self._wake()

    def end(self) -> None:
        self.ended = True
        self._wake()

    async def more(self, than: int, seconds: float | None = None) -> bool:
        """Whether there are more than `than` chunks, or the end, within `seconds` (None: however long it takes)."""
        if len(self.chunks) > than or self.ended:
            return True
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        self._waiting.append(waiter)
        timer = None if seconds is None else loop.call_later(seconds, _set, waiter)
        try:
            await waiter
        finally:
            if timer is not None:
                timer.cancel()
        return len(self.chunks) > than or self.ended

    def nudge(self) -> None:
        """Wakes who waits for more, although there is none."""
        self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            _set(waiter)


def _set(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class RecordedStream(Response):
    """Sends a recording. `on_left`: called when the caller leaves before the end, and on every other way out."""

    comment: bytes | None = None
    """What is sent when nothing came for a while."""

    def __init__(
        self,
        recording: Recording,
        on_left: Callable[[], None],
        *,
        media_type: str,
        headers: dict[str, str] | None = None,
        keep_alive_s: float = KEEP_ALIVE_S,
    ) -> None:
        super().__init__(None, 200, {**HEADERS, **(headers or {})}, media_type)
        self._recording = recording
        self._on_left = on_left
        self._keep_alive_s = keep_alive_s
        if "content-length" in self.headers:
            del self.headers["content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sender = asyncio.current_task()
        assert sender is not None
        gone = False

        async def watch() -> None:
            nonlocal gone
            while (await receive())["type"] != "http.disconnect":
                pass
            gone = True
            self._on_left()
            sender.cancel()

        watcher = asyncio.create_task(watch())
        try:
            await self._send(send)
        except asyncio.CancelledError:
            if not gone or sender.uncancel():
                raise
        finally:
            watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watcher
            self._on_left()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        sent, recording = 0, self._recording
        with _Silence(self._keep_alive_s, recording.nudge) as silence:
            while True:
                if await recording.more(sent):
                    chunks = recording.chunks
                    body = chunks[sent] if len(chunks) == sent + 1 else b"".join(chunks[sent:])
                    sent, ended = len(chunks), recording.ended
                    if ended and recording.failed is not None:
                        raise recording.failed  # the server cuts the connection, so that half is not taken for whole
                    await send({"type": "http.response.body", "body": body, "more_body": not ended})
                    if ended:
                        return
                    silence.broken()
                elif silence.due and self.comment is not None:
                    await send({"type": "http.response.body", "body": self.comment, "more_body": True})
                    silence.broken()


class _Silence:
    """Calls `on_due` once nothing was sent for `seconds`. One timer that moves on when it fires: a timer for
    each token would cost as much as sending it."""

    def __init__(self, seconds: float, on_due: Callable[[], None]) -> None:
        self._seconds = seconds
        self._on_due = on_due
        self._loop = asyncio.get_running_loop()
        self.due = False

    def __enter__(self) -> _Silence:
        self._last = self._loop.time()
        self._timer = self._loop.call_at(self._last + self._seconds, self._fire)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def broken(self) -> None:
        """Something was sent."""
        self._last = self._loop.time()
        self.due = False

    def _fire(self) -> None:
        now = self._loop.time()
        at = self._last + self._seconds
        if now >= at:
            self.due = True
            self._on_due()
            at = now + self._seconds
        self._timer = self._loop.call_at(at, self._fire)


class EventStream(RecordedStream):
    comment = COMMENT

    def __init__(
        self, recording: Recording, on_left: Callable[[], None], *, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(recording, on_left, media_type="text/event-stream", headers=headers)
