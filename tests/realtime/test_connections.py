"""How many connections an address may hold, by itself and through a proxy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import orjson
import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from realtime.connections import ConnectionLimit, Connections
from realtime.http_protocol import HttpProtocol
from realtime.problems import Problems
from realtime.proxies import TrustedProxies
from realtime.web_socket_protocol import WebSocketProtocol
from token_service.errors import TooManyRequests

DEADLINE_S = 10.0
MOST = 3


def client(address: str, port: int) -> tuple[str, int]:
    return address, port


def test_one_address_has_its_limit_and_others_theirs():
    connections = Connections(2, [])
    assert all(connections.opened(client("192.0.2.1", port)) for port in range(4))
    assert not connections.opened(client("192.0.2.1", 4)), "nor is a refusal free"
    assert connections.opened(client("192.0.2.9", 0))
    for port in (0, 1):
        assert connections.enter(client("192.0.2.1", port)) is None
    with pytest.raises(TooManyRequests) as refused:
        connections.enter(client("192.0.2.1", 2))
    assert "connections_per_address" in refused.value.reason
    for port in range(4):
        connections.closed(client("192.0.2.1", port))
    connections.closed(client("192.0.2.9", 0))
    assert not connections._open
    assert not connections._counted
    assert not connections._over


def test_a_network_of_one_customer_counts_once():
    connections = Connections(1, [])
    connections.opened(client("2001:db8::1", 1))
    connections.opened(client("2001:db8::2", 1))
    with pytest.raises(TooManyRequests):
        connections.enter(client("2001:db8::2", 1))
    connections.opened(client("2001:db8:0:1::2", 1))
    assert connections.enter(client("2001:db8:0:1::2", 1)) is None


def test_through_a_trusted_proxy_those_count_for_whom_it_speaks():
    connections = Connections(1, ["10.0.0.0/8"])
    for port in range(5):
        assert connections.opened(client("10.0.0.1", port))
        assert connections.enter(client("10.0.0.1", port)) is None
    first = connections.enter(client("192.0.2.1", 0))
    with pytest.raises(TooManyRequests):
        connections.enter(client("192.0.2.1", 0))
    other = connections.enter(client("192.0.2.2", 0))
    connections.leave(first)
    connections.leave(other)
    assert connections.enter(client("192.0.2.1", 0)) == "192.0.2.1"


async def test_what_is_due_leaves_before_each_request():
    order = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        order.append("request")

    limited: Any = ConnectionLimit(application, Connections(1, []), first=lambda: order.append("due"))
    await asyncio.gather(*(limited({"type": "http", "client": (f"192.0.2.{n}", n)}, None, None) for n in range(2)))
    assert order == ["due", "request"] * 2


class Application:
    """Answers and keeps WebSockets open; requests for /slow wait."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await receive()
            return
        if scope["path"] == "/slow":
            await self.go_on.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})


@pytest.fixture(params=[[], ["127.0.0.1"]], ids=["direct", "proxied"])
async def served(request: pytest.FixtureRequest) -> AsyncIterator[tuple[int, Application, Connections]]:
    own, connections = Application(), Connections(MOST, request.param)
    limited: Any = Problems(TrustedProxies(ConnectionLimit(own, connections), request.param))
    http: Any = partial(HttpProtocol, connections=connections)
    config = uvicorn.Config(limited, port=0, http=http, ws=WebSocketProtocol, lifespan="off", log_config=None)
    config.proxy_headers = False
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1], own, connections
    finally:
        own.go_on.set()
        server.force_exit = True
        await server.shutdown()


REQUEST = b"GET %s HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.7\r\nConnection: close\r\n\r\n"
FORWARDED = {"X-Forwarded-For": "192.0.2.7"}


async def ask(port: int, path: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(REQUEST % path)
    try:
        return await reader.read()
    finally:
        writer.close()


async def until_free(port: int) -> None:
    while b" 204 " not in await ask(port, b"/"):  # noqa: ASYNC110, the server says when
        await asyncio.sleep(0.01)


async def test_the_one_too_many_is_told_and_then_there_is_room_again(
    served: tuple[int, Application, Connections],
) -> None:
    port, own, connections = served
    async with asyncio.timeout(DEADLINE_S):
        slow = [asyncio.create_task(ask(port, b"/slow")) for _ in range(MOST - 1)]
        async with connect(f"ws://127.0.0.1:{port}/", additional_headers=FORWARDED, proxy=None):
            while sum(connections._open.values()) < MOST:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            head, _, body = (await ask(port, b"/")).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 429 ")
            assert b"retry-after: 5" in head.lower()
            assert b"application/problem+json" in head
            assert orjson.loads(body)["error"]["code"] == "too_many_connections"
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"ws://127.0.0.1:{port}/", additional_headers=FORWARDED, proxy=None)
            assert refused.value.response.status_code == 429
        await until_free(port)
        own.go_on.set()
        assert all(b" 204 " in answer for answer in await asyncio.gather(*slow))
        while connections._open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_many_that_say_nothing_are_closed(served: tuple[int, Application, Connections]) -> None:
    port, _, connections = served
    if connections.trusts("127.0.0.1"):
        pytest.skip("a proxy is not counted")
    async with asyncio.timeout(DEADLINE_S):
        opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2 * MOST + 4)]
        ends = [asyncio.create_task(reader.read()) for reader, _ in opened]
        while sum(end.done() for end in ends) < 4:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for _, writer in opened:
            writer.close()
        await asyncio.gather(*ends, return_exceptions=True)
        await until_free(port)
