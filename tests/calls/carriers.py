"""The far end of carriers that nobody simulates for us: a number's webhook, then a phone on its socket.

A `Phone` is a caller in some carrier's dialect: it sends 20 ms of audio every 20 ms, keeps what it is sent in a queue
that plays in real time, and answers marks when they have been played.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import websockets

from media.audio import Pcm
from media.resample import Resampler
from realtime.client.talk import read_audio
from tests.calls.dialects import Answer, Dialect
from tests.calls.server import Server

QUIET_S = 1.0
"""Nothing more is to be heard when so much time has passed."""
DEADLINE_S = 20.0
SILENCE: Pcm = np.zeros(480, np.int16)


class TcpSocket:
    """A TCP connection that looks like a WebSocket to a `Phone`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.close_code: int | None = None

    async def send(self, message: str | bytes) -> None:
        assert isinstance(message, bytes)
        self._writer.write(message)
        await self._writer.drain()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while data := await self._reader.read(4096):
            yield data
        self.close_code = 1000


class Phone:
    """A caller on an open socket. `heard`: what has been played of what came, with the times."""

    def __init__(self, dialect: Dialect, socket: websockets.ClientConnection | TcpSocket) -> None:
        self.dialect = dialect
        self.socket = socket
        self.arrived: list[tuple[float, Pcm]] = []
        self.flushed_at: list[float] = []
        self.marks_answered = 0
        self._playing: list[tuple[float, Pcm]] = []
        """When each piece is to have been played."""
        self._marks: dict[str, asyncio.TimerHandle] = {}
        self._empty_at = 0.0
        self._saying: list[Pcm] = []
        self.first_heard: float | None = None
        self.over = asyncio.Event()

    @property
    def heard(self) -> Pcm:
        """What a person at the phone has heard so far."""
        now = time.monotonic()
        pieces = [pcm for until, pcm in self._playing if until <= now]
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)

    def say(self, clip: Path) -> float:
        """Queue a recording; how many seconds it takes."""
        pcm = Resampler(24_000, self.dialect.rate).push(read_audio(clip))
        size = self.dialect.rate // 50
        self._saying += [pcm[at : at + size] for at in range(0, len(pcm) - size, size)]
        return len(pcm) / self.dialect.rate

    async def press(self, key: str) -> None:
        await self.socket.send(self.dialect.key(key))

    async def until(self, condition: Callable[[], Any], what: str, seconds: float = DEADLINE_S) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited {seconds:.0f} s for {what}"
            assert self.socket.close_code is None, f"the socket was closed while waiting for {what}"
            await asyncio.sleep(0.02)

    async def hung_up(self) -> None:
        """The other side has closed."""
        async with asyncio.timeout(5):
            await self.over.wait()

    async def answered(self) -> None:
        """An answer has come and has been played to its end."""
        await self.until(lambda: self.arrived, "an answer")
        await self.until(lambda: time.monotonic() > max(self._empty_at, self.arrived[-1][0]) + QUIET_S, "its end")

    async def speak(self) -> None:
        """20 ms of speech or silence every 20 ms."""
        silence = np.zeros(self.dialect.rate // 50, np.int16)
        due = time.monotonic()
        while True:
            await self.socket.send(self.dialect.audio(self._saying.pop(0) if self._saying else silence))
            due += 0.02
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def listen(self) -> None:
        try:
            await self._listen()
        finally:
            self.over.set()

    async def _listen(self) -> None:
        async for message in self.socket:
            now = time.monotonic()
            said = self.dialect.read(message)
            if said.audio is not None:
                self.arrived.append((now, said.audio))
                self.first_heard = self.first_heard or now
                self._empty_at = max(self._empty_at, now) + len(said.audio) / self.dialect.rate
                self._playing.append((self._empty_at, said.audio))
            elif said.mark is not None:
                delay = max(0.0, self._empty_at - now)
                self._marks[said.mark] = asyncio.get_running_loop().call_later(delay, self._mark, said.mark)
            elif said.flush:
                self.flushed_at.append(now)
                self._playing = [(until, pcm) for until, pcm in self._playing if until <= now]
                self._empty_at = now
                for name, timer in list(self._marks.items()):
                    timer.cancel()
                    self._mark(name)

    def _mark(self, name: str) -> None:
        self._marks.pop(name, None)
        self.marks_answered += 1
        self._answering = asyncio.ensure_future(self.socket.send(self.dialect.marked(name)))


async def announce(server: Server, dialect: Dialect, call_id: str) -> tuple[int, str]:
    """The webhook: its status and its document."""
    webhook = dialect.webhook(call_id)
    if webhook is None:
        return 200, server.url.replace("http", "ws")
    status, _, body = await server.request(
        "POST", f"{dialect.path}/answer", webhook.body, credential=None, **webhook.headers
    )
    return status, body.decode()


@asynccontextmanager
async def _dialled(dialect: Dialect, answer: Answer) -> AsyncIterator[websockets.ClientConnection | TcpSocket]:
    parts = urlsplit(answer.url)
    if parts.scheme == "tcp":
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            yield TcpSocket(reader, writer)
        finally:
            writer.close()
        return
    async with websockets.connect(
        answer.url,
        additional_headers=answer.headers,
        subprotocols=dialect.subprotocols,  # type: ignore[arg-type]
        compression=None,
    ) as socket:
        assert dialect.subprotocols is None or socket.subprotocol in dialect.subprotocols
        yield socket


@asynccontextmanager
async def ring(server: Server, dialect: Dialect, call_id: str) -> AsyncIterator[Phone]:
    """A call that is up: the webhook, the socket, its first messages."""
    status, document = await announce(server, dialect, call_id)
    assert status == 200, document
    answer = dialect.answer(document)
    # Its own copy: a stream counts its own messages and keeps its own half-read frame.
    dialect = copy.copy(dialect)
    async with _dialled(dialect, answer) as socket:
        for message in dialect.start(call_id, answer):
            await socket.send(message)
        phone = Phone(dialect, socket)
        tasks = [asyncio.create_task(phone.speak()), asyncio.create_task(phone.listen())]
        try:
            yield phone
        finally:
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, AssertionError):
                    raise result
