"""The text channel of a WebRTC call: one data channel, bounded both ways.

The first channel labelled `oai-events` is taken, every other one is closed. What the caller sends is
passed on as it stands; what is too large, too frequent or not text is refused and told, never parsed.
What we send before the channel opens waits for it, the newest kept.

    WAITING --channel open--> OPEN --channel closed, off()--> OFF
       \\______________________ off() ______________________/
"""

from __future__ import annotations

import logging
import time
from collections import deque
from enum import Enum
from typing import Protocol

from aiortc import InvalidStateError, RTCDataChannel

logger = logging.getLogger(__name__)

LABEL = "oai-events"
MAX_MESSAGE_BYTES = 262_144
"""Bytes in one message of the caller: what our SDP announces."""
MESSAGES_PER_S = 50.0
MESSAGES_BURST = 200.0
"""Messages that may come at once: a client that replays a conversation sends its items in one go."""
MAX_BUFFERED_BYTES = 4 * 1024 * 1024
"""Bytes sent and not yet read by the other side: minutes of events, so it is not reading at all."""
_MAX_WAITING = 1024
"""Messages kept until the channel opens, or until the other side may be told of the caller's."""
_REFUSALS_EVERY_S = 1.0
"""Seconds between two reports of the same flood: a flood must not be answered with one."""
_MAX_STRANGERS = 32
"""Channels with other labels that are closed politely; a caller that opens more is attacking."""


class TextState(Enum):
    WAITING = "waiting"
    OPEN = "open"
    OFF = "off"


class TextEvents(Protocol):
    """What the channel tells its owner."""

    def on_text_open(self) -> None: ...

    def on_text(self, text: str) -> None: ...

    def on_text_refused(self, code: str, detail: str) -> None: ...

    def on_text_broken(self, reason: str) -> None:
        """The call must end: `slow_reader`, or `failed` for a caller that abuses the channel."""


class _Nobody:
    """Who is told once the channel is off: its owner is not held any longer."""

    def on_text_open(self) -> None: ...

    def on_text(self, text: str) -> None: ...

    def on_text_refused(self, code: str, detail: str) -> None: ...

    def on_text_broken(self, reason: str) -> None: ...


class TextChannel:
    """See the module. Not thread-safe; every method is called on the event loop.

    `counts`: messages beyond `MESSAGES_PER_S` are refused. A caller does not count those of its server.
    """

    def __init__(self, events: TextEvents, *, counts: bool = True) -> None:
        self._events: TextEvents = events
        self._counts = counts
        self._state = TextState.WAITING
        self._channel: RTCDataChannel | None = None
        self._outbox: deque[tuple[str, int]] = deque()
        self._outbox_bytes = 0
        self._inbox: deque[str] = deque(maxlen=_MAX_WAITING)
        self._strangers = 0
        self._tokens = MESSAGES_BURST
        self._tokens_at = time.monotonic()
        self._refused_many = 0
        self._told_many_at = float("-inf")
        self.messages_received = 0
        self.messages_sent = 0
        self.messages_refused = 0

    @property
    def state(self) -> TextState:
        return self._state

    def stats(self) -> dict[str, float]:
        return {
            "texts_received": self.messages_received,
            "texts_sent": self.messages_sent,
            "texts_refused": self.messages_refused,
        }

    def take(self, channel: RTCDataChannel) -> None:
        """A channel of either side. It may be open already."""
        if self._state is TextState.OFF:
            return
        if self._channel is not None or channel.label != LABEL:
            self._strangers += 1
            channel.close()
            if self._strangers > _MAX_STRANGERS:
                self._events.on_text_broken("failed")
            return
        self._channel = channel
        channel.on("open", self._opened)
        channel.on("message", self._received)
        channel.on("close", self.off)
        if channel.readyState == "open":
            self._opened()

    def send(self, text: str) -> None:
        """One message, in order. Without a channel it waits; after `off` it is dropped."""
        if self._state is TextState.OPEN:
            self._send_now(text)
        elif self._state is TextState.WAITING:
            self._outbox.append((text, len(text.encode())))
            self._outbox_bytes += self._outbox[-1][1]
            while len(self._outbox) > _MAX_WAITING or self._outbox_bytes > MAX_BUFFERED_BYTES:
                self._outbox_bytes -= self._outbox.popleft()[1]

    def off(self) -> None:
        """Nothing is sent or told any more."""
        self._state = TextState.OFF
        self._events = _Nobody()
        self._outbox.clear()
        self._inbox.clear()

    def release(self) -> None:
        """The connection is closed: let go of its channel."""
        self.off()
        if self._channel is not None:
            self._channel.remove_all_listeners()
            self._channel = None

    def refuse(self, code: str, detail: str) -> None:
        """Count and tell a message that was dropped."""
        self.messages_refused += 1
        self._events.on_text_refused(code, detail)

    def _opened(self) -> None:
        if self._state is not TextState.WAITING:
            return
        self._state = TextState.OPEN
        while self._outbox and self._state is TextState.OPEN:
            self._send_now(self._outbox.popleft()[0])
        self._events.on_text_open()
        while self._inbox:
            self._events.on_text(self._inbox.popleft())

    def _send_now(self, text: str) -> None:
        channel = self._channel
        assert channel is not None
        try:
            channel.send(text)
        except InvalidStateError:
            return
        except ValueError as error:
            # Longer than the other side announced it can take.
            logger.warning("an event was not sent: %s", error)
            return
        self.messages_sent += 1
        if channel.bufferedAmount > MAX_BUFFERED_BYTES:
            self._events.on_text_broken("slow_reader")

    def _received(self, message: str | bytes) -> None:
        if self._state is TextState.OFF or not self._is_within_rate():
            return
        if not isinstance(message, str):
            self.refuse("not_text", "only text messages are taken")
            return
        # A character is 1 to 4 bytes: most messages are judged without encoding them.
        if len(message) * 4 > MAX_MESSAGE_BYTES:
            size = len(message.encode(errors="replace"))
            if size > MAX_MESSAGE_BYTES:
                self.refuse("too_large", f"{size} bytes, {MAX_MESSAGE_BYTES} are taken")
                return
        self.messages_received += 1
        if self._state is TextState.OPEN:
            self._events.on_text(message)
        else:
            self._inbox.append(message)

    def _is_within_rate(self) -> bool:
        if not self._counts:
            return True
        now = time.monotonic()
        self._tokens = min(MESSAGES_BURST, self._tokens + (now - self._tokens_at) * MESSAGES_PER_S)
        self._tokens_at = now
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return True
        self._refused_many += 1
        if now - self._told_many_at < _REFUSALS_EVERY_S:
            self.messages_refused += 1
            return False
        count, self._refused_many, self._told_many_at = self._refused_many, 0, now
        self.refuse("too_many", f"{count} dropped; {MESSAGES_PER_S:g} messages a second are taken")
        return False
