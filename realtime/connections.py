"""How many connections one address may hold: TCP from outside, requests and WebSockets through a trusted proxy.

A connection over the limit is answered, with 429 and Retry-After, whatever it asks for; over twice the limit it is
closed at once, since being refused must not cost what the limit is to save. A trusted proxy is not counted itself:
what comes through it counts for the address that it names. One IPv6 customer has a /64 and counts once.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from token_service.errors import TooManyRequests
from token_service.minting import visitor

RETRY_AFTER_S = 5.0

Client = tuple[str, int]
"""Address and port, as ASGI has it."""


class Connections:
    """`most`: of one address. `trusted`: addresses and networks of proxies. `refused` is called for each refusal."""

    def __init__(self, most: int, trusted: Sequence[str], refused: Callable[[], None] = lambda: None) -> None:
        self.most = most
        self._trusted = [ipaddress.ip_network(one) for one in trusted]
        self._told = refused
        self._open: Counter[str] = Counter()
        self._counted: dict[Client, str] = {}
        self._over: set[Client] = set()

    def opened(self, client: Client | None) -> bool:
        """A TCP connection has come; whether to listen to it. Each that has is `closed` once."""
        if client is None or self.trusts(client[0]):
            return True
        who = visitor(client[0])
        if self._open[who] >= 2 * self.most:
            self._told()
            return False
        if self._open[who] >= self.most:
            self._over.add(client)
        self._counted[client] = who
        self._open[who] += 1
        return True

    def closed(self, client: Client | None) -> None:
        if client is not None and (who := self._counted.pop(client, None)) is not None:
            self._over.discard(client)
            self._release(who)

    def enter(self, client: Client | None) -> str | None:
        """A request or a WebSocket begins; None, or what is to `leave` when it is over. Raises `TooManyRequests`."""
        if client is None or (client not in self._counted and self.trusts(client[0])):
            return None
        if client in self._counted:
            if client in self._over:
                raise self._refusal()
            return None
        who = visitor(client[0])
        if self._open[who] >= self.most:
            raise self._refusal()
        self._open[who] += 1
        return who

    def leave(self, who: str | None) -> None:
        if who is not None:
            self._release(who)

    def trusts(self, address: str) -> bool:
        try:
            parsed = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(parsed in network for network in self._trusted)

    def _release(self, who: str) -> None:
        self._open[who] -= 1
        if not self._open[who]:
            del self._open[who]

    def _refusal(self) -> TooManyRequests:
        self._told()
        message = "Too many connections from your address; close some, or try again later."
        reason = f"limits.connections_per_address is {self.most}"
        return TooManyRequests(RETRY_AFTER_S, message, reason=reason, code="too_many_connections")


class ConnectionLimit:
    """The ASGI middleware; behind `TrustedProxies`, which says whose a request is.

    `first` is called before each request: a hundred that come at once run in one round of the event loop, which
    takes a hundred times as long as one, and what is due to leave must not wait for them all.
    """

    def __init__(self, app: ASGIApp, connections: Connections, first: Callable[[], None] = lambda: None) -> None:
        self._app = app
        self._connections = connections
        self._first = first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        self._first()
        client = scope.get("client")
        who = self._connections.enter((client[0], client[1]) if client else None)
        try:
            await self._app(scope, receive, send)
        finally:
            self._connections.leave(who)
