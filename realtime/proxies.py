"""Where a request really came from and went to, when a trusted proxy says so.

An ASGI middleware around the application, in place of uvicorn's: from a proxy in `[server] trusted_proxies`
X-Forwarded-For, -Proto and -Host become the client, the scheme and the Host of the request, so that everything
behind sees the public side. From anybody else they change nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import cast

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

MAX_HOST = 262
"""Characters: a name of 253, a colon and a port."""


class TrustedProxies:
    """`trusted`: addresses and networks."""

    def __init__(self, app: ASGIApp, trusted: Sequence[str]) -> None:
        self._app = app
        self._networks = [ipaddress.ip_network(one) for one in trusted]
        self._rest = cast(ASGIApp, ProxyHeadersMiddleware(app, list(trusted)))  # type: ignore[arg-type]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        if self._trusts(scope.get("client")):
            host = Headers(scope=scope).get("x-forwarded-host", "").rpartition(",")[2].strip()
            if host and len(host) <= MAX_HOST:
                MutableHeaders(scope=scope)["host"] = host
        await self._rest(scope, receive, send)

    def _trusts(self, client: tuple[str, int] | None) -> bool:
        try:
            address = ipaddress.ip_address(client[0] if client else "")
        except ValueError:
            return False
        return any(address in network for network in self._networks)
