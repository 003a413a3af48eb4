"""Fetches the URLs that requests name, and nothing inside our own network.

A name is resolved once, every address it has is checked, and the connection goes to a checked address, so
that a second answer of the name server changes nothing. A redirect is a new URL and passes the same way.
No proxy of the environment is used, since it would connect for us unchecked. Bytes, time and redirects
are bounded. What an address answers is data; that it may not be reached is never told apart from why.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore2

from realtime.gateway.errors import GatewayError

MAX_REDIRECTS = 3
MAX_URL = 8192
CONNECT_S = 5.0
PORTS = frozenset({80, 443})
"""Of the web; other ports are other services."""
AT_ONCE = 32

_DENIED = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4",
        "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
        "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10",
    )
)  # fmt: skip
"""Beside what `is_global` knows: translated and tunnelled addresses lead into networks it does not look at."""

_REDIRECTS = frozenset({301, 302, 303, 307, 308})

logger = logging.getLogger(__name__)

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


def allowed(address: str) -> bool:
    """Whether this is an address of the public internet."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if found.is_multicast or found.is_unspecified or not found.is_global:
        return False
    return not any(found.version == network.version and found in network for network in _DENIED)


async def resolve(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[4][0]) for address in found))


class _Refused(Exception):
    """Why a connection was not made; for the log."""


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Opens connections to checked addresses only. `connect` is what opens them."""

    def __init__(
        self,
        *,
        resolve: Resolve = resolve,
        ports: Iterable[int] = PORTS,
        allowed: Callable[[str], bool] = allowed,
        connect: httpcore2.AsyncNetworkBackend | None = None,
    ) -> None:
        self._resolve = resolve
        self._ports = frozenset(ports)
        self._allowed = allowed
        self._connect = connect or httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        if port not in self._ports:
            raise _Refused(f"port {port}")
        async with asyncio.timeout(CONNECT_S):
            addresses = await self._resolve(host, port)
        denied = [address for address in addresses if not self._allowed(address)]
        if denied or not addresses:
            raise _Refused(f"{host} is {', '.join(denied) or 'nothing'}")
        for address in addresses[:-1]:
            try:
                return await self._connect.connect_tcp(address, port, CONNECT_S, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout):
                continue
        return await self._connect.connect_tcp(addresses[-1], port, CONNECT_S, local_address, socket_options)

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        raise _Refused("a local socket")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Fetcher:
    """`backend`, `tls`: for tests."""

    def __init__(
        self,
        *,
        seconds: float = 20.0,
        backend: httpcore2.AsyncNetworkBackend | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._seconds = seconds
        self._backend = backend or GuardedBackend()
        self._tls = tls
        self._places = asyncio.Semaphore(AT_ONCE)

    async def fetch(self, url: str, limit: int, param: str = "url") -> bytes:
        """The bytes at `url`, at most `limit`. Raises 422 for what may not or cannot be fetched, 413, 504."""
        try:
            async with asyncio.timeout(self._seconds), self._places:
                return await self._follow(url, limit, param)
        except TimeoutError:
            message = f"{param}: the URL did not answer within {self._seconds:g} seconds."
            raise GatewayError(422, "fetch_timeout", message, param=param) from None

    async def _follow(self, url: str, limit: int, param: str) -> bytes:
        for _ in range(MAX_REDIRECTS + 1):
            checked = self._checked(url, param)
            try:
                found = await self._get(checked, limit, param)
            except _Refused as refused:
                logger.info("not fetched: %s", refused)
                raise _forbidden(param) from None
            except GatewayError:
                raise
            except (httpcore2.TimeoutException, TimeoutError):
                raise GatewayError(
                    422, "fetch_timeout", f"{param}: the URL did not answer in time.", param=param
                ) from None
            except Exception as error:
                logger.info("not fetched: %s", type(error).__name__)
                raise GatewayError(422, "fetch_failed", f"{param}: the URL cannot be fetched.", param=param) from None
            if isinstance(found, bytes):
                return found
            url = found
        raise GatewayError(422, "fetch_failed", f"{param}: more than {MAX_REDIRECTS} redirects.", param=param)

    def _checked(self, url: str, param: str) -> str:
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise _forbidden(param) from None
        if len(url) > MAX_URL or not url.isascii() or any(ord(c) <= 32 or ord(c) == 127 for c in url):
            raise _forbidden(param)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password or port == 0:
            raise _forbidden(param)
        return url.partition("#")[0]

    async def _get(self, url: str, limit: int, param: str) -> bytes | str:
        """The body, or where a redirect leads. A connection of its own, so that none is reused unchecked."""
        headers = {"User-Agent": "infrai-realtime", "Accept": "*/*", "Accept-Encoding": "identity"}
        host = urlsplit(url).netloc
        pool = httpcore2.AsyncConnectionPool(ssl_context=self._tls, network_backend=self._backend, max_connections=1)
        timeouts = {"connect": CONNECT_S, "read": self._seconds, "write": CONNECT_S, "pool": CONNECT_S}
        async with (
            pool,
            pool.stream(
                "GET", url, headers=[("Host", host), *headers.items()], extensions={"timeout": timeouts}
            ) as response,
        ):
            given = {name.lower(): value for name, value in response.headers}
            if response.status in _REDIRECTS and b"location" in given:
                return urljoin(url, given[b"location"].decode("latin-1"))
            if response.status != 200:
                message = f"{param}: the URL answered with status {response.status}."
                raise GatewayError(422, "fetch_failed", message, param=param)
            if given.get(b"content-encoding", b"identity").lower() != b"identity":
                # It was not asked for, and unpacking it is how small bodies become large ones.
                raise GatewayError(422, "fetch_failed", f"{param}: the URL sent a packed body.", param=param)
            return await _bounded(response, limit, param)


async def _bounded(response: httpcore2.Response, limit: int, param: str) -> bytes:
    body = bytearray()
    async for piece in response.aiter_stream():
        body += piece
        if len(body) > limit:
            raise GatewayError(413, "file_too_large", f"{param}: the URL has more than {limit} bytes.", param=param)
    return bytes(body)


def _forbidden(param: str) -> GatewayError:
    message = f"{param}: this URL is not fetched; only http and https addresses of the public internet are."
    return GatewayError(422, "forbidden_url", message, param=param)
