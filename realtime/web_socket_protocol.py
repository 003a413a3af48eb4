"""uvicorn's WebSocket, made for many small messages: a call sends fifty a second.

Two things are done differently, and only while nothing unusual happens:

- A few small messages may wait for the application while more are read. uvicorn stops reading from a socket
  at every message until the application has taken it, and stopping and starting costs more than parsing them.
  The bound stays: a large message, one in parts, or the last of a few, stops the reading as before.
- A read that is nothing but a few whole small messages is unpacked here, in a few steps. Everything else (control
  frames, parts, half a frame, whatever breaks RFC 6455) goes through `websockets`' parser, whose generators cost
  several times as much.

What takes longer than `TURN_S` to parse (a read may hold 40 000 of the smallest frames) goes on in the loop's
next turn, and nothing is read until then.

A client that floods it with pings and reads none of the answers gets only the last ones, and a message has a bounded
number of parts.

And an application that asks for it (`MESSAGES`) gets each message by a call, with no queue or task between.
"""

from __future__ import annotations

import time
from asyncio import BaseTransport
from collections.abc import Callable
from typing import Any, Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame, apply_mask  # type: ignore[attr-defined]  # in C where there is one
from websockets.http11 import Request
from websockets.protocol import State

from realtime.slow_readers import READ_SECONDS, SlowReader

MOST_WAITING: Final = 8
"""Messages that may wait for the application while more are read."""
SMALL: Final = 16_384
"""Bytes of a message that may be one of them."""
MOST_AT_ONCE: Final = 8
"""Messages of one read that are unpacked here."""
MOST_PARTS: Final = 16_384
"""Of one message: an empty part costs memory too, and counts nothing against the size of a message."""
TURN_S: Final = 0.002
"""What the parser may take of one turn of the loop; a slice more, at the most."""
SLICE: Final = 2048
"""Bytes that it is given at a time."""
MESSAGES: Final = "realtime.messages"
"""The extension in the scope: `scope["extensions"][MESSAGES](take)` calls `take(text or bytes)` for each message from
now on, and `receive()` then says only that the other side is gone."""

_KINDS: Final = {0x81: "text", 0x82: "bytes"}
"""First bytes of a frame that is a whole message and not compressed (RFC 6455 5.2)."""
_MASKED: Final = 0x80
_LONG: Final = 126
"""The length stands in the two bytes behind; with 127, in eight."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    read_seconds = READ_SECONDS
    lost: Callable[[], None] | None = None
    """Called when the connection is gone."""
    _take: Callable[[str | bytes], None] | None = None

    _rest: bytes = b""
    """What was read and waits for the next turn."""

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self._reader = SlowReader(self.transport, self.read_seconds)
        self._pongs: list[bytes] = []

    def pause_writing(self) -> None:
        super().pause_writing()
        self._reader.waiting()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._reader.flowing()
        if self._pongs and not self.transport.is_closing():
            self.transport.write(b"".join(self._pongs))
        self._pongs = []

    def handle_ping(self) -> None:
        """Of pings that come while nothing can be written, the last ones are answered (RFC 6455 5.5.3)."""
        if self.writable.is_set():
            super().handle_ping()
        elif pongs := self.conn.data_to_send():
            self._pongs = pongs

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) < MOST_PARTS:
            super().handle_cont(event)
        elif self.conn.state is State.OPEN:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, f"a message of more than {MOST_PARTS} parts")
            self.handle_parser_exception()

    def data_received(self, data: bytes) -> None:
        if self._rest:
            self._rest += data
            self._hold()
            return
        messages = _whole_messages(data)
        if messages is None or not self._is_between_frames():
            self._parse(data)
            return
        for first, payload in messages:
            if self.conn.state is not State.OPEN:
                return  # what comes after a message that ends the call counts no more
            self.curr_msg_data_type = _KINDS[first]  # type: ignore[assignment]  # a literal of uvicorn's
            self.frames = [payload]
            self.send_receive_event_to_app()

    def _parse(self, data: bytes) -> None:
        """As much of it as there is time for in this turn."""
        until = time.monotonic() + TURN_S
        for start in range(0, len(data), SLICE):
            if start and self.transport.is_closing():
                return
            if start and time.monotonic() > until:
                self._rest = data[start:]
                self._hold()
                self.loop.call_soon(self._go_on)
                return
            super().data_received(data[start : start + SLICE])

    def _go_on(self) -> None:
        data, self._rest = self._rest, b""
        if self.transport.is_closing():
            return
        self._parse(data)
        if not self._rest and not self.read_paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def _hold(self) -> None:
        """Read nothing while something waits; uvicorn may have gone on reading meanwhile."""
        if self._rest and self.transport.is_reading() and not self.transport.is_closing():
            self.transport.pause_reading()

    async def receive(self) -> Any:
        message = await super().receive()
        self._hold()
        return message

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.response.status_code == 101:
            extensions: Any = self.scope["extensions"]
            extensions[MESSAGES] = self.take_messages

    def connection_lost(self, exc: Exception | None) -> None:
        self._take = None
        scope: Any = getattr(self, "scope", {"extensions": {}})
        scope["extensions"].pop(MESSAGES, None)  # a circle
        super().connection_lost(exc)
        self._reader.lost()
        if self.lost is not None:
            self.lost()
            self.lost = None  # a circle

    def take_messages(self, take: Callable[[str | bytes], None]) -> None:
        """Call `take` for each message, those that wait first. It raises nothing."""
        others = []
        while not self.queue.empty():
            event: Any = self.queue.get_nowait()
            if event["type"] == "websocket.receive":
                take(event["text"] if "text" in event else event["bytes"])
            else:
                others.append(event)
        for event in others:
            self.queue.put_nowait(event)
        self._take = take
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
            self._hold()

    def send_receive_event_to_app(self) -> None:
        if self._take is not None and self._give(self._take):
            return
        small = len(self.frames) == 1 and len(self.frames[0]) <= SMALL
        if self.read_paused or not small or self.queue.qsize() >= MOST_WAITING:
            super().send_receive_event_to_app()
            return
        self.read_paused = True  # uvicorn then does not pause for this message
        super().send_receive_event_to_app()
        self.read_paused = False

    def _give(self, take: Callable[[str | bytes], None]) -> bool:
        """Whether the message was given. One that is no UTF-8 is not: uvicorn knows what that means."""
        if self.close_sent:
            return False
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        message: str | bytes = data
        if self.curr_msg_data_type == "text":
            try:
                message = data.decode()
            except UnicodeDecodeError:
                return False
        self.frames = []
        take(message)
        return True

    def _is_between_frames(self) -> bool:
        """The connection is open, and the parser has read everything and waits for a message to begin."""
        if self.conn.state is not State.OPEN or self.conn.current_size is not None:
            return False
        waiting: Any = self.conn.parser
        while waiting.gi_yieldfrom is not None:
            waiting = waiting.gi_yieldfrom
        return bool(waiting.__name__ == "at_eof")


def _whole_messages(data: bytes) -> list[tuple[int, bytes]] | None:
    """First byte and payload of each, if `data` is nothing but whole small messages of a client, and few; else None."""
    messages: list[tuple[int, bytes]] = []
    at, size = 0, len(data)
    while at < size:
        if size - at < 6 or data[at] not in _KINDS or not data[at + 1] & _MASKED or len(messages) == MOST_AT_ONCE:
            return None
        length, mask_at = data[at + 1] & 0x7F, at + 2
        if length >= _LONG:
            length, mask_at = (data[at + 2] << 8 | data[at + 3], at + 4) if length == _LONG else (SMALL + 1, at + 10)
        end = mask_at + 4 + length
        if length > SMALL or end > size:
            return None
        messages.append((data[at], bytes(apply_mask(data[mask_at + 4 : end], data[mask_at : mask_at + 4]))))
        at = end
    return messages
