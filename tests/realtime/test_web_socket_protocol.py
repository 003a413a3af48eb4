"""The socket reads on while a few small messages wait, and no further: over real sockets, by a slow application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
import websockets

from realtime.web_socket_protocol import MOST_WAITING, SMALL, WebSocketProtocol
from tests.media.webrtc import until

ONE_READ = 1 << 18
"""Bytes that asyncio reads from a socket at a time."""


class SlowApplication:
    """Takes the first message when `go` is set, then all that come."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.taken: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await self.go.wait()
        while (message := await receive())["type"] == "websocket.receive":
            self.taken.append(message["text"])
            await send({"type": "websocket.send", "text": str(len(self.taken))})


@asynccontextmanager
async def serving(application: SlowApplication) -> AsyncIterator[tuple[str, uvicorn.Server]]:
    config = uvicorn.Config(
        application,
        port=0,
        ws=WebSocketProtocol,
        ws_per_message_deflate=False,
        lifespan="off",
        log_level="warning",
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}", server
    finally:
        application.go.set()
        server.force_exit = True
        await server.shutdown()


def only(server: uvicorn.Server) -> WebSocketProtocol:
    (protocol,) = server.server_state.connections
    assert isinstance(protocol, WebSocketProtocol)
    return protocol


@pytest.mark.parametrize(("size", "fewest"), [(SMALL, MOST_WAITING), (ONE_READ, 1)], ids=["small", "large"])
async def test_reading_stops_while_messages_wait_and_all_arrive_in_order(size: int, fewest: int) -> None:
    application = SlowApplication()
    sent = [str(number).ljust(size) for number in range(60)]
    async with serving(application) as (url, server), websockets.connect(url) as socket:

        async def send() -> None:
            for text in sent:
                await socket.send(text)

        sending = asyncio.create_task(send())
        await until(lambda: only(server).read_paused, "reading stopped")
        # One read of the socket may end more than one message; none is read after it.
        assert fewest <= only(server).queue.qsize() <= fewest + ONE_READ // size
        application.go.set()
        async with asyncio.timeout(10):
            while await socket.recv() != "60":
                pass
        await sending
    assert application.taken == sent


async def test_it_goes_on_reading_while_fewer_wait() -> None:
    application = SlowApplication()
    async with serving(application) as (url, server), websockets.connect(url) as socket:
        for number in range(MOST_WAITING - 1):
            await socket.send(str(number))
        await until(lambda: only(server).queue.qsize() == MOST_WAITING - 1, "all had come")
        assert not only(server).read_paused
