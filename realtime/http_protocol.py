"""uvicorn's HTTP, with bounds on what a client may make the server hold before anybody has asked who it is.

uvicorn takes a request's head of any size, joined anew with every packet (which holds up the event loop and
so the sound of every call), and waits for the rest of a request for ever. Here

    HEAD --headers complete--> BODY --message complete--> NONE --next message begins--> HEAD

a head has `HEAD_BYTES` and `HEAD_SECONDS`, the first one from the opening of the connection on, and a body
must go on: `BODY_BYTES` in each `BODY_SECONDS` in which the application waits for it. A client that goes on
sending after it was answered has `LINGER_SECONDS` and `LINGER_BYTES` to notice: a connection that is closed while
something comes is reset, and the client would not see the answer.

    any --refused--> REFUSED (nothing is read any more, only dropped)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from enum import Enum
from http import HTTPStatus
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from realtime.connections import Connections
from realtime.slow_readers import READ_SECONDS, SlowReader
from realtime.web_socket_protocol import WebSocketProtocol

HEAD_BYTES: Final = 32_768
"""Of address and headers together. A token takes one thousand of them."""
HEAD_SECONDS: Final = 10.0
BODY_BYTES: Final = 4096
BODY_SECONDS: Final = 20.0
LINGER_SECONDS: Final = 5.0
LINGER_BYTES: Final = 64 << 20
"""An upload that is twice too large is dropped to its end."""

logger = logging.getLogger(__name__)


class _Part(Enum):
    """What of a request comes next. `NONE`: the one before is complete; uvicorn's keep-alive counts."""

    HEAD = "head"
    BODY = "body"
    NONE = "none"
    REFUSED = "refused"


class _Answer:
    """What a request's answer is written to: a transport that is closed only when the request has come to its end."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self.write = transport.write
        self.is_closing = transport.is_closing
        self.close = close


class HttpProtocol(HttpToolsProtocol):
    """`connections` counts them by address."""

    head_seconds = HEAD_SECONDS
    body_seconds = BODY_SECONDS
    linger_seconds = LINGER_SECONDS
    read_seconds = READ_SECONDS

    def __init__(self, *arguments: Any, connections: Connections | None = None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._connections = connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._reader = SlowReader(transport, self.read_seconds)
        self._lingered = 0
        self._closing = False
        self._part = _Part.HEAD
        self._head_bytes = self._body_bytes = 0
        self._too_large = False
        self._deadline: asyncio.TimerHandle | None = None
        self._allow(self.head_seconds)
        if self._connections is not None and not self._connections.opened(self.client):
            self._connections = None
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._allow(None)
        self._reader.lost()
        self._lost()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._part is _Part.REFUSED:
            self._linger(len(data))
            return
        waited_for_head = self._part is not _Part.BODY
        super().data_received(data)
        if waited_for_head and self._part is _Part.HEAD and not self.transport.is_closing():
            self._head_bytes += len(data)  # httptools tells of a header only when it is complete
            if self._head_bytes > HEAD_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader.waiting()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reader.flowing()

    def send_400_response(self, msg: str) -> None:
        if self._too_large:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif not self.transport.is_closing():
            super().send_400_response(msg)

    def handle_websocket_upgrade(self) -> None:
        self._allow(None)  # from here on the WebSocket's own pings and limits hold
        self._reader.lost()
        super().handle_websocket_upgrade()
        protocol: Any = self.transport.get_protocol()
        if isinstance(protocol, WebSocketProtocol):
            protocol.lost = self._lost
        else:
            self._lost()

    def _lost(self) -> None:
        connections, self._connections = self._connections, None
        if connections is not None:
            connections.closed(self.client)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._part = _Part.HEAD
        self._head_bytes = 0
        self._in_fields = 0
        self._allow(self.head_seconds)

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._part = _Part.BODY
        self._body_bytes = 0
        self._allow(self.body_seconds)
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before:
            self.cycle.transport = _Answer(self.transport, self._close_when_read)  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self.cycle is not None and self.cycle.response_complete:
            self._linger(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._part = _Part.NONE
        self._allow(None)
        super().on_message_complete()
        if self._closing:
            self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._part is _Part.BODY:
            self._allow(self.linger_seconds)

    def _close_when_read(self) -> None:
        if self._part is _Part.BODY and self.cycle.response_complete and not self.transport.is_closing():
            self._closing = True
        else:
            self.transport.close()

    def _linger(self, size: int) -> None:
        self._lingered += size
        if self._lingered > LINGER_BYTES:
            self.transport.close()

    def _count(self, size: int) -> None:
        """Of a complete field. Raises, which httptools takes for an error of the request."""
        self._in_fields += size
        if self._in_fields > HEAD_BYTES:
            self._too_large = True
            raise httptools.HttpParserError("the head is too large")

    def _allow(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._out_of_time)

    def _out_of_time(self) -> None:
        self._deadline = None
        if self.transport.is_closing():
            return
        answered = self.cycle is not None and self.cycle.response_complete
        if self._part is _Part.BODY and not answered:
            enough = self._body_bytes >= BODY_BYTES or self.flow.read_paused
            self._body_bytes = 0
            if enough:
                self._allow(self.body_seconds)
                return
        if self._part is _Part.REFUSED or answered:
            self.transport.close()
            return
        logger.info("a client took too long over the %s of a request; its connection is closed", self._part.value)
        self.transport.close()

    def _refuse(self, status: HTTPStatus) -> None:
        logger.info("a request was refused: %d %s", status, status.phrase)
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        self.transport.write(head.encode())
        self._part = _Part.REFUSED
        self._allow(self.linger_seconds)
