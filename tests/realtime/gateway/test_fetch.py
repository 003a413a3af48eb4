"""The fetch guard: what leads into our own network is never connected to, however it is spelt or resolved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import httpcore2
import pytest

from realtime.gateway.errors import GatewayError
from realtime.gateway.fetch import Fetcher, GuardedBackend, allowed, resolve

FORBIDDEN = [
    "127.0.0.1", "127.1.2.3", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "192.0.0.8", "192.0.2.1", "198.18.0.1", "203.0.113.1", "224.0.0.1", "239.1.1.1", "240.0.0.1", "255.255.255.255",
    "::", "::1", "::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::a00:1", "64:ff9b:1::1", "2002:a00:1::1", "2001::1",
    "2001:db8::1", "fc00::1", "fd12::1", "fe80::1", "fe80::1%eth0", "ff02::1", "fec0::1", "100::1",
    "3fff::1", "nonsense", "",
]  # fmt: skip
PUBLIC = ["1.1.1.1", "93.184.216.34", "2606:4700:4700::1111", "::ffff:8.8.8.8"]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_addresses_of_networks_that_are_not_the_internet_are_refused(address: str) -> None:
    assert not allowed(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_not(address: str) -> None:
    assert allowed(address)


class Connections(httpcore2.AsyncNetworkBackend):
    """Notes what would be connected to, and connects to a server of the test instead."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self.made: list[tuple[str, int]] = []

    async def connect_tcp(self, host: str, port: int, *_: object, **__: object) -> httpcore2.AsyncNetworkStream:
        self.made.append((host, port))
        return await httpcore2.AnyIOBackend().connect_tcp("127.0.0.1", self.port, 5)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost/", "http://127.1/", "http://0x7f.1/", "http://2130706433/", "http://[::1]/", "http://[::]/",
        "http://[::ffff:10.0.0.1]/", "http://10.0.0.1/", "http://169.254.169.254/latest/meta-data/",
        "http://100.64.0.1/", "http://0.0.0.0/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/",
        "http://017700000001/", "http://127.0.0.1:8080/", "http://1.1.1.1:22/", "https://1.1.1.1:6379/",
        "ftp://1.1.1.1/", "file:///etc/passwd", "gopher://1.1.1.1/", "//1.1.1.1/", "http:///x", "http://user:pw@1.1.1.1/",
        "http://1.1.1.1@10.0.0.1/", "http://1.1.1.1:0/", "http://1.1.1.1:99999/", "http://1.1.1.1/\r\nHost: x", "",
        "http://[fe80::1%25lo]/", "http://１２７.0.0.1/", "http://" + "a" * 9000,
    ],
)  # fmt: skip
async def test_such_urls_make_no_connection(url: str) -> None:
    connections = Connections()
    with pytest.raises(GatewayError) as caught:
        await Fetcher(backend=GuardedBackend(connect=connections), seconds=5).fetch(url, 100)
    assert caught.value.status == 422
    assert caught.value.code in ("forbidden_url", "fetch_failed")
    assert connections.made == []


# --- names ----------------------------------------------------------------------------------------


def answering(*answers: Sequence[str]) -> tuple[GuardedBackend, Connections, list[str]]:
    """A guard whose name server gives these answers in turn."""
    asked: list[str] = []
    left = list(answers)
    connections = Connections()

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return left.pop(0) if len(left) > 1 else left[0]

    return GuardedBackend(resolve=resolve, connect=connections), connections, asked


@pytest.mark.parametrize("answer", [["10.0.0.1"], ["1.1.1.1", "10.0.0.1"], ["::1"], []])
async def test_a_name_with_any_forbidden_address_is_refused(answer: list[str]) -> None:
    backend, connections, _ = answering(answer)
    with pytest.raises(GatewayError, match="only http"):
        await Fetcher(backend=backend).fetch("http://name.example/", 100)
    assert connections.made == []


@asynccontextmanager
async def web(*answers: bytes) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that gives these answers, one a connection."""
    asked: list[bytes] = []
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(left.pop(0) if len(left) > 1 else left[0])
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], asked


def answer(body: bytes, head: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {head}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


async def test_a_public_name_is_fetched_from_the_address_that_was_checked() -> None:
    backend, connections, asked = answering(["1.1.1.1"], ["10.0.0.1"])
    async with web(answer(b"picture")) as (connections.port, requests):
        assert await Fetcher(backend=backend).fetch("http://name.example/a?b=c#d", 100) == b"picture"
    assert connections.made == [("1.1.1.1", 80)]
    assert asked == ["name.example"]  # once: a second answer of the name server has no chance
    assert requests[0].startswith(b"GET /a?b=c HTTP/1.1\r\nHost: name.example\r\n")
    assert b"authorization" not in requests[0].lower()
    assert b"cookie" not in requests[0].lower()


async def test_a_name_that_changes_its_mind_between_two_fetches_is_refused() -> None:
    backend, connections, _ = answering(["1.1.1.1"], ["127.0.0.1"])
    fetcher = Fetcher(backend=backend)
    async with web(answer(b"picture")) as (connections.port, _):
        await fetcher.fetch("http://name.example/", 100)
        with pytest.raises(GatewayError, match="only http"):
            await fetcher.fetch("http://name.example/", 100)
    assert len(connections.made) == 1


@pytest.mark.parametrize(
    "location", ["http://10.0.0.1/", "http://localhost/", "file:///etc/passwd", "http://name.example:22/", "//[::1]/"]
)
async def test_a_redirect_passes_the_same_guard(location: str) -> None:
    connections = Connections()

    async def names(host: str, port: int) -> Sequence[str]:
        return ["1.1.1.1"] if host == "name.example" else await resolve(host, port)

    backend = GuardedBackend(resolve=names, connect=connections)
    async with web(answer(b"", "302 Found", f"Location: {location}")) as (connections.port, _):
        with pytest.raises(GatewayError, match="only http"):
            await Fetcher(backend=backend).fetch("http://name.example/", 100)
    assert connections.made == [("1.1.1.1", 80)]


async def test_redirects_are_followed_three_times() -> None:
    backend, connections, _ = answering(["1.1.1.1"])
    hop = answer(b"", "307 Temporary Redirect", "Location: /next")
    async with web(hop, hop, hop, answer(b"there")) as (connections.port, requests):
        assert await Fetcher(backend=backend).fetch("http://name.example/", 100) == b"there"
        assert requests[-1].startswith(b"GET /next ")
    async with web(hop) as (connections.port, _):
        with pytest.raises(GatewayError, match="more than 3 redirects"):
            await Fetcher(backend=backend).fetch("http://name.example/", 100)


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        (answer(b"x" * 101), 413, "file_too_large"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"ff\r\n" + b"x" * 255 + b"\r\n", 413,
         "file_too_large"),
        (answer(b"x", "404 Not Found"), 422, "fetch_failed"),
        (answer(b"x", "200 OK", "Content-Encoding: gzip"), 422, "fetch_failed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf", 422, "fetch_failed"),
        (b"nonsense\r\n\r\n", 422, "fetch_failed"),
        (b"", 422, "fetch_failed"),
    ],
)  # fmt: skip
async def test_what_comes_back_is_bounded(given: bytes, status: int, code: str) -> None:
    backend, connections, _ = answering(["1.1.1.1"])
    async with web(given) as (connections.port, _):
        with pytest.raises(GatewayError) as caught:
            await Fetcher(backend=backend).fetch("http://name.example/", 100)
    assert (caught.value.status, caught.value.code) == (status, code)


async def test_a_server_that_never_answers_is_given_up() -> None:
    backend, connections, _ = answering(["1.1.1.1"])

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        connections.port = server.sockets[0].getsockname()[1]
        with pytest.raises(GatewayError) as caught:
            await Fetcher(backend=backend, seconds=0.3).fetch("http://name.example/", 100)
    assert caught.value.code == "fetch_timeout"


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    backend, connections, _ = answering(["1.1.1.1"])
    async with web(answer(b"direct")) as (connections.port, _):
        assert await Fetcher(backend=backend).fetch("http://name.example/", 100) == b"direct"
    assert connections.made == [("1.1.1.1", 80)]
