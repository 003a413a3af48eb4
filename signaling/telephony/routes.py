"""Telephone calls over HTTP and WebSocket.

    POST {prefix}/{name}/answer     the number's webhook: checked, and answered with what sends the call here
    WS   {prefix}/{name}            the carrier's socket

A call comes in four steps, each of which refuses what does not belong: the webhook's signature; the socket's,
before it is accepted; a `start` within five seconds and a few small messages; and the one-time token in it,
for this call and no other. Only then is a leg made. What a carrier signs is the public address: `public_url`,
else the Host of the request (a trusted proxy may have put the public one there).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response, WebSocket
from starlette.requests import HTTPConnection
from starlette.websockets import WebSocketDisconnect

from media.pacer import Pacer
from signaling.caller import Caller
from signaling.calls import Calls
from signaling.errors import CallError, Full
from signaling.telephony.carrier import (
    Carrier,
    CarrierError,
    Codec,
    Incoming,
    Message,
    RestCall,
    Secrets,
    Started,
    Stopped,
    Stream,
    WebRequest,
    check_size,
)
from signaling.telephony.expected import Expected
from signaling.telephony.leg import DEFAULT_PATIENCE, CarrierLeg, Patience
from token_service.errors import InvalidRequest
from token_service.tokens import Claims, new_session_id

log = logging.getLogger("signaling.telephony")

PREFIX = "/v1/ai/realtime/telephony"
START_S = 5.0
"""Seconds from the upgrade to `start`."""
MAX_BEFORE_START = 8
"""Messages before `start`, which is the first or the second everywhere."""
MAX_UNPROVED = 200
"""Sockets without a signature that wait for their token at once."""
MAX_BODY = 64 << 10
MESSAGES = "realtime.messages"
"""The extension of a WebSocket's scope that takes a function to be called with each message."""
CLAIMS_SECONDS = 60
WRITE_S = 10.0
"""Seconds in which a carrier must take a message."""
CLOSE_CODES: Mapping[str, int] = {
    "server_shutdown": 1001,
    "protocol_error": 1002,
    "slow_reader": 1008,
    "refused": 1008,
    "full": 1013,
}


@dataclass(frozen=True, slots=True)
class Line:
    """One `[telephony.NAME]`."""

    name: str
    carrier: Carrier
    secrets: Secrets | None = None
    agent: str = "default"
    numbers: Mapping[str, str] = field(default_factory=dict)
    """The agent by the dialled number, where it is not `agent`."""
    greeting: str | None = None
    codec: Codec | None = None
    needs_socket_signature: bool = True
    rest_url: str | None = None
    """In place of the carrier's own."""
    patience: Patience = DEFAULT_PATIENCE

    def agent_for(self, dialled: str | None) -> str:
        return self.numbers.get(dialled or "", self.agent)


class TelephonyRoutes:
    """`rest(url, call)`: makes a request to a carrier's own interface; its status."""

    def __init__(
        self,
        *,
        lines: Mapping[str, Line],
        calls: Calls,
        expected: Expected,
        pacer: Pacer,
        public_url: str | None,
        rest: Callable[[str, RestCall], Awaitable[int]],
    ) -> None:
        self._lines = lines
        self._calls = calls
        self._expected = expected
        self._pacer = pacer
        self._public_url = public_url
        self._rest = rest
        self._waiting = 0

    def _line(self, name: str) -> Line:
        line = self._lines.get(name)
        if line is None:
            raise CallError(404, "line_not_found", "There is no such telephone line.")
        return line

    # --- the webhook --------------------------------------------------------------------------

    async def answer(self, request: Request, name: str) -> Response:
        line = self._line(name)
        web = WebRequest(
            request.method,
            public_urls(request, self._public_url),
            _headers(request),
            await _body(request),
            time.time(),
        )
        if line.secrets is None or not line.carrier.signed_webhook(web, line.secrets):
            raise CallError(
                403,
                "bad_signature",
                "The request is not signed by the carrier.",
                reason=f"{line.name}: webhook signature for {web.address}",
            )
        try:
            incoming = line.carrier.incoming(web)
        except CarrierError as error:
            raise CallError(422, "invalid_webhook", f"This is no call: {error}.") from error
        if not line.carrier.announces:
            raise CallError(404, "no_webhook", "This carrier has no webhook: its socket comes by itself.")
        token = await self._expected.announce(line.name, incoming)
        base = public_urls(request, self._public_url)[0]
        parts = urlsplit(base)
        scheme = "wss" if parts.scheme in ("https", "wss") else "ws"
        socket_url = f"{scheme}://{parts.netloc}{parts.path.removesuffix('/answer')}"
        document = line.carrier.answer(socket_url, token, incoming, line.codec)
        log.info("%s announces call=%s from=%s", line.name, incoming.call_id, redacted(incoming.number))
        return Response(document.body, 200, {"Cache-Control": "no-store"}, document.content_type)

    # --- the socket ---------------------------------------------------------------------------

    async def socket(self, socket: WebSocket, name: str) -> None:
        line = self._line(name)
        is_signed = self._check_upgrade(socket, line)
        self._calls.reserve().close()  # a full house is said while HTTP can say it
        with nullcontext() if is_signed else self._unproved():
            stream = line.carrier.stream(line.codec, dict(socket.query_params))
            await socket.accept(_protocol(socket, stream))
            try:
                leg = await self._open(socket, line, stream)
            except (CarrierError, CallError, InvalidRequest, TimeoutError, WebSocketDisconnect, Full) as error:
                why = error.reason or error.code if isinstance(error, CallError) else error
                address = socket.client.host if socket.client else ""
                extra = {"refused": ("sockets closed before their call began", address)}  # `realtime.log_limit`
                log.warning("%s: a socket was closed before its call began: %r", line.name, why, extra=extra)
                await _close(socket, _refusal(error))
                return
        leg.open()
        writing = asyncio.create_task(_write(socket, leg))
        try:
            await _read(socket, leg)
        finally:
            await leg.close("remote_closed")
            await asyncio.gather(writing, return_exceptions=True)

    @contextmanager
    def _unproved(self) -> Iterator[None]:
        """A socket that nobody signed is one of a few until its token has come."""
        if self._waiting >= MAX_UNPROVED:
            raise Full(START_S)
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    def _check_upgrade(self, socket: WebSocket, line: Line) -> bool:
        """Whether it is signed. Raises `CallError` where it has to be."""
        web = WebRequest("GET", public_urls(socket, self._public_url), _headers(socket), b"", time.time())
        signed = None if line.secrets is None else line.carrier.signed_socket(web, line.secrets)
        needed = line.carrier.signs_socket and (line.needs_socket_signature or not line.carrier.announces)
        if signed is False or (signed is None and needed):
            raise CallError(
                403,
                "bad_signature",
                "The socket is not signed by the carrier.",
                reason=f"{line.name}: {'wrong' if signed is False else 'no'} signature for {web.address}",
            )
        return signed is True

    async def _open(self, socket: WebSocket, line: Line, stream: Stream) -> CarrierLeg:
        """A place is taken when the call has proved itself, not before."""
        async with asyncio.timeout(START_S):
            started = await _handshake(socket, stream)
            incoming = Incoming(started.call_id)
            if line.carrier.announces:
                incoming = await self._expected.open(line.name, started.token, started.call_id)
        caller = Caller(
            "phone",
            number=started.number or incoming.number,
            dialled=started.dialled or incoming.dialled,
            carrier=line.name,
            parameters={**incoming.parameters, **started.parameters},
        )
        now = int(time.time())
        claims = Claims(
            session_id=new_session_id(),
            jti=f"phone:{line.name}:{started.stream_id}"[:128],
            subject=f"telephony:{line.name}",
            agent=line.agent_for(caller.dialled),
            issued_at=now,
            expires_at=now + CLAIMS_SECONDS,
        )
        started = replace(started, account=started.account or incoming.account)
        leg = CarrierLeg(stream, started, self._pacer, patience=line.patience, transfer=self._transfer(line, started))
        with self._calls.reserve() as place:
            await self._calls.open(leg, claims, {}, caller, place=place, greeting=line.greeting)
        log.info(
            "%s opens call=%s session=%s from=%s",
            line.name,
            started.call_id,
            claims.session_id,
            redacted(caller.number),
        )
        return leg

    def _transfer(self, line: Line, started: Started) -> Callable[[str], Awaitable[None]] | None:
        base = line.rest_url or line.carrier.rest_url
        known = line.secrets
        try:
            if (
                base is None
                or known is None
                or line.carrier.transfer(started, "+15550000000", known, time.time()) is None
            ):
                return None
        except CarrierError as error:
            log.warning("%s: no call can be transferred: %s", line.name, error)
            return None

        async def transfer(target: str) -> None:
            call = line.carrier.transfer(started, target, known, time.time())
            assert call is not None
            status = await self._rest(base, call)
            if not 200 <= status < 300:
                raise CarrierError(f"{line.name} did not transfer the call: HTTP {status}")

        return transfer


def telephony_routes(handlers: TelephonyRoutes) -> APIRouter:
    router = APIRouter(tags=["telephony"])

    async def answer(request: Request, name: str) -> Response:
        """The webhook of a telephone number: answers with the carrier's own document. Signed by the carrier."""
        return await handlers.answer(request, name)

    async def socket(websocket: WebSocket, name: str) -> None:
        await handlers.socket(websocket, name)

    router.add_api_route(f"{PREFIX}/{{name}}/answer", answer, methods=["POST"], operation_id="telephony_answer")
    router.add_api_websocket_route(f"{PREFIX}/{{name}}", socket)
    return router


# --- requests ------------------------------------------------------------------------------------------


def public_urls(request: HTTPConnection, public_url: str | None) -> Sequence[str]:
    """How the carrier may have written the address of this request when it signed it, the likeliest first.

    With `public_url` only that host counts, whatever the request says. The port may be written or left out.
    """
    is_socket = request.scope["type"] == "websocket"
    if public_url is not None:
        parts = urlsplit(public_url)
        secure, netloc, root = parts.scheme == "https", parts.netloc, parts.path.rstrip("/")
    else:
        secure, netloc, root = request.url.scheme in ("https", "wss"), request.headers.get("host", ""), ""
    scheme = ("wss" if secure else "ws") if is_socket else ("https" if secure else "http")
    query = request.scope.get("query_string", b"").decode("latin-1")
    raw = request.scope.get("raw_path") or request.scope["path"].encode()
    rest = root + raw.decode("latin-1").partition("?")[0] + (f"?{query}" if query else "")
    host, port = _host_and_port(netloc)
    default = "443" if secure else "80"
    hosts = [netloc]
    if port in (None, default):
        hosts = [host, f"{host}:{default}"]
    elif port is not None:
        hosts = [netloc, host]
    return [f"{scheme}://{name}{rest}" for name in hosts]


def _host_and_port(netloc: str) -> tuple[str, str | None]:
    host, colon, port = netloc.rpartition(":")
    return (host, port) if colon and port.isdigit() and not netloc.endswith("]") else (netloc, None)


def _headers(request: HTTPConnection) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in request.headers.raw}


async def _body(request: Request) -> bytes:
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY:
            raise CallError(413, "body_too_large", f"A webhook has at most {MAX_BODY >> 10} KiB.")
    return body


def redacted(number: str | None) -> str:
    """A number as it may stand in a log: only its end."""
    return "-" if not number else f"…{number[-2:]}" if len(number) > 4 else "…"


# --- sockets -------------------------------------------------------------------------------------------


async def _receive(socket: WebSocket) -> Message | None:
    """The next message; None when the other side is gone."""
    try:
        received = await socket.receive()
    except RuntimeError:
        return None
    if received["type"] != "websocket.receive":
        return None
    message: Message | None = received.get("text")
    if message is None:
        message = received["bytes"]
    assert message is not None
    return message


async def _handshake(socket: WebSocket, stream: Stream) -> Started:
    for _ in range(MAX_BEFORE_START):
        message = await _receive(socket)
        if message is None:
            raise WebSocketDisconnect
        check_size(message)
        started = None
        for event in stream.decode(message):
            if isinstance(event, Stopped):
                raise CarrierError("stop before start")
            started = event if isinstance(event, Started) else started
        if started is not None:
            return started
    raise CarrierError(f"no start in {MAX_BEFORE_START} messages")


async def _read(socket: WebSocket, leg: CarrierLeg) -> None:
    """Until the other side is gone. A server that knows how gives the leg its messages with no task between."""
    give: Callable[[Callable[[Message], None]], None] | None = socket.scope.get("extensions", {}).get(MESSAGES)
    if give is not None:
        give(leg.take)
    while leg.closed is None:
        message = await _receive(socket)
        if message is None:
            return
        leg.take(message)


async def _write(socket: WebSocket, leg: CarrierLeg) -> None:
    try:
        while (message := await leg.unsent()) is not None:
            if isinstance(message, str):
                await socket.send_text(message)
            else:
                await socket.send_bytes(message)
    except (WebSocketDisconnect, RuntimeError):
        await leg.close("remote_closed")
    finally:
        await _close(socket, leg.closed or "hangup")


def _refusal(error: Exception) -> str:
    match error:
        case CarrierError():
            return "protocol_error"
        case Full():
            return "full"
    return "refused"


async def _close(socket: WebSocket, reason: str) -> None:
    try:
        async with asyncio.timeout(WRITE_S):
            await socket.close(CLOSE_CODES.get(reason, 1000), reason)
    except (RuntimeError, TimeoutError, WebSocketDisconnect):
        log.debug("the socket was closed already")


def _protocol(socket: WebSocket, stream: Stream) -> str | None:
    wanted = stream.traits.subprotocol
    return wanted if wanted in socket.scope.get("subprotocols", []) else None
