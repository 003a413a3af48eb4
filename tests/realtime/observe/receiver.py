"""A developer's server that gets webhooks, checked by the official `standardwebhooks` library.

What it answers is scripted: bytes as they go on the wire, a number of seconds to wait first, or a
function of the message. A bad signature fails the test that reads what came.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks import Webhook

SECRET = "whsec_" + "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OK = b"HTTP/1.1 204 No Content\r\n\r\n"

Step = bytes | float | Callable[[dict[str, Any]], bytes]


def answer(status: str, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"HTTP/1.1 {status}", f"content-length: {len(body)}", *lines, "", ""]).encode() + body


@dataclass
class Receiver:
    """`script`: one step a request, then `OK`. A float: seconds before `OK`, unless the sender hangs up."""

    script: deque[Step] = field(default_factory=deque)
    port: int = 0
    ids: list[str] = field(default_factory=list)
    """Of every request."""
    taken: list[dict[str, Any]] = field(default_factory=list)
    """Messages answered by 2xx."""
    bad: list[Exception] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hooks"

    def kinds(self) -> list[str]:
        return [message["type"] for message in self.taken]

    async def until(self, done: Callable[[], bool], seconds: float = 10.0) -> None:
        async with asyncio.timeout(seconds):
            while not done():
                self._news.clear()
                await self._news.wait()
        assert self.bad == []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            while True:
                await self._one(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()
        finally:
            self.at_once -= 1
            self.writers.discard(writer)
            self._news.set()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
        body = await reader.readexactly(int(headers["content-length"]))
        try:
            message = Webhook(SECRET).verify(body, headers)
        except Exception as error:
            self.bad.append(error)
            message = json.loads(body)
        self.ids.append(headers["webhook-id"])
        step = self.script.popleft() if self.script else OK
        if isinstance(step, float):
            self._news.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(1), step)
            raise ConnectionError
        data = step if isinstance(step, bytes) else step(message)
        if data.startswith(b"HTTP/1.1 2"):
            self.taken.append(message)
        self._news.set()
        writer.write(data)
        await writer.drain()
        if not data.startswith(b"HTTP/1.1 2"):
            raise ConnectionError


@asynccontextmanager
async def receiver(*script: Step, port: int = 0) -> AsyncIterator[Receiver]:
    found = Receiver(deque(script))
    server = await asyncio.start_server(found.handle, "127.0.0.1", port)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for writer in found.writers:
            writer.transport.abort()
        await found.until(lambda: not found.writers)
