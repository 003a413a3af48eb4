"""A client that takes nothing of what is written to it holds memory and a socket; it has so long to go on.

Its deadline runs while anything waits in the transport, also behind a close: a transport that is closed waits for its
buffer to be taken, for ever where nobody takes it.

    FLOWING --something has to wait--> WAITING --all is taken--> FLOWING
                                       WAITING --too long--> the connection is aborted
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

READ_SECONDS: Final = 60.0
"""Longer than a train takes through a tunnel."""

logger = logging.getLogger(__name__)


class SlowReader:
    """Of one connection, whose protocol tells of `waiting`, `flowing` and `lost`."""

    def __init__(self, transport: asyncio.Transport, seconds: float = READ_SECONDS) -> None:
        self._transport = transport
        self._seconds = seconds
        self._deadline: asyncio.TimerHandle | None = None
        # Told as soon as anything has to wait, and when nothing does. Not 0: over TLS nothing at all reaches that.
        transport.set_write_buffer_limits(1)

    def waiting(self) -> None:
        if self._deadline is None:
            self._deadline = asyncio.get_running_loop().call_later(self._seconds, self._give_up)

    def flowing(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    lost = flowing

    def _give_up(self) -> None:
        self._deadline = None
        logger.info("a client has read nothing for %g s; its connection is closed", self._seconds)
        self._transport.abort()
