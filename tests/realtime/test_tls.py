"""Where the server does TLS itself: requests are answered, and handshakes that do not go on are ended."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import httpx2
import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from websockets.sync.client import connect

from realtime import self_signed, serve
from realtime.connections import Connections
from realtime.http_protocol import HttpProtocol
from realtime.slow_readers import READ_SECONDS
from realtime.web_socket_protocol import WebSocketProtocol

Address = tuple[str, int, Path]
"""And the certificate to trust."""
DEADLINE_S = 10.0
HANDSHAKE_S = 0.5
LARGE = 8 << 20
"""Bytes: more than the system's buffers and the server's take."""


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    await PlainTextResponse("x" * LARGE if scope["path"] == "/large" else "hello")(scope, receive, send)


@pytest.fixture(scope="module", params=["auto", "asyncio"])
def address(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    certificate, key = self_signed.ensure(tmp_path_factory.mktemp("tls"), [])
    ready = threading.Event()
    with pytest.MonkeyPatch.context() as patch, socket.create_server(("127.0.0.1", 0)) as listener:
        patch.setattr(serve, "HANDSHAKE_SECONDS", HANDSHAKE_S)
        config = uvicorn.Config(
            application,
            loop=request.param,
            http=partial(HttpProtocol, connections=Connections(100, [])),  # type: ignore[arg-type]
            ws=WebSocketProtocol,
            lifespan="off",
            log_config=None,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        server = serve._Server(config, ready.set)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        assert ready.wait(DEADLINE_S)
        yield (*listener.getsockname(), certificate)
        server.should_exit = True
        thread.join(DEADLINE_S)


def test_requests_are_answered_one_after_another_on_one_connection(address: Address) -> None:
    _, port, certificate = address
    trust = ssl.create_default_context(cafile=str(certificate))
    with httpx2.Client(verify=trust, base_url=f"https://localhost:{port}", timeout=DEADLINE_S) as client:
        assert [client.get("/").text for _ in range(3)] == ["hello"] * 3
        assert len(client.get("/large").content) == LARGE, "more than can be written at once"
        assert client.get("/").text == "hello"
    with connect(f"wss://localhost:{port}/", ssl=trust, open_timeout=DEADLINE_S) as web_socket:
        for text in ("one", "two"):
            web_socket.send(text)
            assert web_socket.recv(DEADLINE_S) == text


def test_a_handshake_that_does_not_go_on_is_ended(address: Address) -> None:
    for first in (b"", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"):
        with socket.create_connection(address[:2], timeout=READ_SECONDS / 3) as silent:
            silent.sendall(first)
            with suppress(ConnectionResetError):
                assert silent.recv(1) == b""
