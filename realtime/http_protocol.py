"""uvicorn's HTTP, with bounds on what a client may make the server hold before anybody has asked who it is.

uvicorn takes a request's head of any size, joined anew with every packet (which holds up the event loop and
so the sound of every call), and waits for the rest of a request for ever. Here

    HEAD --headers complete--> BODY --message complete--> NONE --next message begins--> HEAD

a head has `HEAD_BYTES` and `HEAD_SECONDS`, the first one from the opening of the connection on, and a body
must go on: `BODY_BYTES` in each `BODY_SECONDS` in which the application waits for it. A client that goes on
sending after it was answered has `LINGER_SECONDS` to notice.
"""

from __future__ import annotations

import asyncio
import logging
from enum import Enum
from http import HTTPStatus
from typing import Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES: Final = 32_768
"""Of address and headers together. A token takes one thousand of them."""
HEAD_SECONDS: Final = 10.0
BODY_BYTES: Final = 4096
BODY_SECONDS: Final = 20.0
LINGER_SECONDS: Final = 5.0

logger = logging.getLogger(__name__)


class _Part(Enum):
    """What of a request comes next. `NONE`: the one before is complete; uvicorn's keep-alive counts."""

    HEAD = "head"
    BODY = "body"
    NONE = "none"


class HttpProtocol(HttpToolsProtocol):
    head_seconds = HEAD_SECONDS
    body_seconds = BODY_SECONDS
    linger_seconds = LINGER_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._part = _Part.HEAD
        self._head_bytes = self._body_bytes = 0
        self._too_large = False
        self._deadline: asyncio.TimerHandle | None = None
        self._allow(self.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._allow(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        waited_for_head = self._part is not _Part.BODY
        super().data_received(data)
        if waited_for_head and self._part is _Part.HEAD and not self.transport.is_closing():
            self._head_bytes += len(data)  # httptools tells of a header only when it is complete
            if self._head_bytes > HEAD_BYTES:
                self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def send_400_response(self, msg: str) -> None:
        if self._too_large:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif not self.transport.is_closing():
            super().send_400_response(msg)

    def handle_websocket_upgrade(self) -> None:
        self._allow(None)  # from here on the WebSocket's own pings and limits hold
        super().handle_websocket_upgrade()

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
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._part = _Part.NONE
        self._allow(None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._part is _Part.BODY:
            self._allow(self.linger_seconds)

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
        logger.info("a client took too long over the %s of a request; its connection is closed", self._part.value)
        self.transport.close()

    def _refuse(self, status: HTTPStatus) -> None:
        logger.info("a request was refused: %d %s", status, status.phrase)
        head = f"HTTP/1.1 {status.value} {status.phrase}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        self.transport.write(head.encode())
        self.transport.close()
