"""What a client may make the server hold and wait for, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import uvicorn

from realtime import serve
from realtime.app import create_app
from realtime.http_protocol import BODY_BYTES, HEAD_BYTES, LINGER_BYTES, HttpProtocol
from realtime.settings import Settings

DEADLINE_S = 10.0
HEAD = b"POST /taken HTTP/1.1\r\nHost: x\r\n"


class Impatient(HttpProtocol):
    head_seconds = 0.3
    body_seconds = 0.3
    linger_seconds = 0.3
    read_seconds = 0.3


async def application(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Reads the body, unless the path is /refused; answers with its length."""
    size = 0
    while scope["path"] != "/refused":
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    text = bytes(32 << 20) if scope["path"] == "/large" else str(size).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    config = uvicorn.Config(application, port=0, http=Impatient, lifespan="off", log_config=None, timeout_keep_alive=60)
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.force_exit = True
        await server.shutdown()


async def say(port: int, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Sends these one after the other and reads until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(DEADLINE_S):
            for part in parts:
                writer.write(part)
                try:
                    await writer.drain()
                except ConnectionError:
                    break
                await asyncio.sleep(pause_s)
            try:
                return await reader.read()
            except ConnectionError:
                return b""
    finally:
        writer.close()


async def answer(port: int, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Sends these and reads one answer, whose body is a number."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(DEADLINE_S):
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(pause_s)
            await reader.readuntil(b"\r\n\r\n")
            return await reader.read(100)
    finally:
        writer.close()


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param((b"GET / HTTP/1.1\r\nX: ", *[b"a" * 4096] * 64), id="an endless header"),
        pytest.param((b"GET /", *[b"a" * 4096] * 64), id="an endless address"),
        pytest.param((b"GET / HTTP/1.1\r\n", *[b"X: a\r\n" * 1000] * 64), id="endless headers"),
        pytest.param((b"GET / HTTP/1.1\r\nX: " + b"a" * (HEAD_BYTES + 1) + b"\r\n\r\n",), id="one packet"),
    ],
)
async def test_a_head_that_is_too_large_is_refused(port: int, parts: tuple[bytes, ...]) -> None:
    said = await say(port, *parts, pause_s=0.001)
    assert said.startswith(b"HTTP/1.1 431 ")


async def test_a_large_header_and_a_large_body_are_taken(port: int) -> None:
    fields = b"X: " + b"a" * (HEAD_BYTES - 1000) + b"\r\n"
    body = b"b" * 200_000
    assert await answer(port, HEAD + fields + b"Content-Length: %d\r\n\r\n" % len(body) + body) == b"200000"


@pytest.mark.parametrize("begun", [b"", HEAD, b"\r\n"])
async def test_a_connection_without_a_request_is_closed(port: int, begun: bytes) -> None:
    assert await say(port, begun) == b""


async def test_a_head_that_trickles_is_closed(port: int) -> None:
    assert await say(port, *[b"G", b"E", b"T", b" ", b"/", b"a"] * 5, pause_s=0.05) == b""


async def test_the_next_head_of_a_connection_has_its_own_time(port: int) -> None:
    request = HEAD + b"Content-Length: 0\r\n\r\n"
    assert await say(port, request, HEAD) == b"HTTP/1.1 200 OK\r\n" + (await _fields(port)) + b"\r\n0"


async def _fields(port: int) -> bytes:
    said = await say(port, HEAD + b"Content-Length: 0\r\nConnection: close\r\n\r\n")
    kept = said.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return b"".join(line + b"\r\n" for line in kept if not line.startswith(b"connection"))


async def test_a_body_that_stops_is_closed_and_one_that_goes_on_is_taken(port: int) -> None:
    assert await say(port, HEAD + b"Content-Length: 9\r\n\r\n", b"b") == b""
    pieces = [b"b" * BODY_BYTES] * 12
    size = b"Content-Length: %d\r\n\r\n" % (12 * BODY_BYTES)
    assert await answer(port, HEAD + size, *pieces, pause_s=0.1) == b"%d" % (12 * BODY_BYTES)


async def test_what_is_sent_after_the_answer_does_not_hold_the_connection(port: int) -> None:
    head = b"POST /refused HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n"
    await say(port, head, *[b"b"] * 10, pause_s=0.05)  # ends, because the server closes


async def test_the_answer_is_seen_though_the_body_goes_on_behind_it(port: int) -> None:
    head = b"POST /refused HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(DEADLINE_S):
        writer.write(head % (20 << 20))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        for _ in range(20):  # the whole of it can be written, as a client does that reads afterwards
            writer.write(bytes(1 << 20))
            await writer.drain()
        assert await reader.read() == b"0"  # and then the server closes
    writer.close()


async def test_what_is_dropped_behind_an_answer_has_its_bound(port: int) -> None:
    head = b"POST /refused HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(DEADLINE_S):
        writer.write(head % (1 << 40))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        sent = 0
        with suppress(ConnectionError):
            while sent < 4 * LINGER_BYTES:
                writer.write(bytes(1 << 20))
                await writer.drain()
                sent += 1 << 20
        assert LINGER_BYTES // 2 < sent < 4 * LINGER_BYTES
    writer.close()


async def test_an_answer_that_nobody_reads_is_given_up(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
    async with asyncio.timeout(DEADLINE_S):
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"33554432" in await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.6)  # while nothing is read; then what the system holds, and no more
        with suppress(ConnectionError):
            assert len(await reader.read(-1)) < 32 << 20
    writer.close()


async def test_the_server_runs_with_it(tmp_path: Any) -> None:
    settings = Settings.model_validate({"server": {"data": str(tmp_path)}})
    config = serve._uvicorn_config(create_app(settings, engines="instant"), serve.Options())
    assert isinstance(config.http_protocol_class, partial)
    assert config.http_protocol_class.func is HttpProtocol
