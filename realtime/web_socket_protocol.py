"""uvicorn's WebSocket, which reads on while a few small messages wait.

uvicorn stops reading from a socket at every message until the application has taken it. A call that
appends audio sends fifty small ones a second, and stopping and starting costs more than parsing them.
The bound stays: a large message, one in parts, or the last of a few, stops the reading as before.
"""

from __future__ import annotations

from typing import Final

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

MOST_WAITING: Final = 8
"""Messages that may wait for the application while more are read."""
SMALL: Final = 16_384
"""Bytes of a message that may be one of them."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    def send_receive_event_to_app(self) -> None:
        small = len(self.frames) == 1 and len(self.frames[0]) <= SMALL
        if self.read_paused or not small or self.queue.qsize() >= MOST_WAITING:
            super().send_receive_event_to_app()
            return
        self.read_paused = True  # uvicorn then does not pause for this message
        super().send_receive_event_to_app()
        self.read_paused = False
