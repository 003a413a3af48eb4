"""The transport over a WebSocket, with a server that says more than anybody wants to hear."""

from __future__ import annotations

import asyncio
import time

import pytest
import websockets
from websockets.asyncio.server import ServerConnection, serve

from media.audio import Pcm
from media.playout import PlayoutEvent
from realtime.client.socket import SocketTransport
from tests.media.webrtc import until

TALK = 500
"""Events: the client stops reading from its socket at sixteen that nobody takes."""


class Listener:
    def __init__(self) -> None:
        self.first = asyncio.Event()
        self.texts = 0
        self.closed: list[str] = []

    def on_open(self) -> None: ...
    def on_text_open(self) -> None: ...
    def on_audio(self, pcm: Pcm, at: float) -> None: ...
    def on_key(self, key: str, at: float) -> None: ...
    def on_playout(self, event: PlayoutEvent) -> None: ...

    def on_text(self, text: str) -> None:
        self.texts += 1
        self.first.set()

    def on_closed(self, reason: str) -> None:
        self.closed.append(reason)


async def call(port: int) -> tuple[SocketTransport, Listener]:
    transport, listener = SocketTransport(), Listener()
    transport.attach(listener)
    await transport.dial(f"http://127.0.0.1:{port}", "token", 10)
    return transport, listener


async def test_hanging_up_on_a_server_in_full_flow_takes_no_time() -> None:
    async def talk(socket: ServerConnection) -> None:
        await socket.send('{"type":"session.created"}')
        try:
            while True:
                await socket.send('{"type":"rate_limits.updated","rate_limits":[]}')
        except websockets.ConnectionClosed:
            pass

    async with serve(talk, "127.0.0.1", 0) as server:
        transport, listener = await call(server.sockets[0].getsockname()[1])
        await asyncio.wait_for(listener.first.wait(), 10)
        began = time.monotonic()
        await transport.close()
        assert time.monotonic() - began < 3
        told = listener.texts
        assert listener.closed == ["hangup"]
        await asyncio.sleep(0)
        assert listener.texts == told


@pytest.mark.parametrize("code", [1000, 1011, 1012])
async def test_a_server_that_ends_the_call_ends_it_once(code: int) -> None:
    async def end(socket: ServerConnection) -> None:
        for _ in range(TALK):
            await socket.send('{"type":"rate_limits.updated","rate_limits":[]}')
        await socket.close(code)

    async with serve(end, "127.0.0.1", 0) as server:
        transport, listener = await call(server.sockets[0].getsockname()[1])
        await until(lambda: bool(listener.closed), "the call is over")
        assert listener.texts == TALK
        await transport.close()
        assert listener.closed == ["remote_closed"]
