"""Keys of a telephone as RTP events (RFC 4733): payloads in, one key a press out. Sans-I/O.

A press is a run of packets with one timestamp, sent again and again while it lasts and thrice at its
end. It is told by the first of them that arrives, so that a lost packet costs nothing and a long press
does not wait for its end. A press too long for the 16-bit duration goes on under a new timestamp,
which follows the old one by just that duration (section 2.5.1.3): that is the same press.
"""

from __future__ import annotations

import re
from struct import Struct
from typing import Final

from media.rtp import RtpPacket

KEYS: Final = "0123456789*#ABCD"
"""By event code (section 3.2); the codes behind them are not keys."""
NAME: Final = "telephone-event"

_EVENT: Final = Struct("!BBH")
_END: Final = 0x80
_RTPMAP: Final = re.compile(rf"^a=rtpmap:([0-9]{{1,3}}) {NAME}/([0-9]{{1,6}})\s*$", re.IGNORECASE | re.MULTILINE)


def payload_type(description: str, clock_rate: int) -> int | None:
    """The payload type of key events at this clock rate in a description; they share the audio's clock."""
    found = (int(match[1]) for match in _RTPMAP.finditer(description) if int(match[2]) == clock_rate)
    return next((number for number in found if number < 128), None)


class Keys:
    """The presses of one call."""

    def __init__(self) -> None:
        self._ssrc: int | None = None
        self._event = -1
        self._timestamp = 0
        self._duration = 0
        self._is_over = True

    def press(self, packet: RtpPacket) -> str | None:
        """The key, when `packet` is the first that is seen of its press; one of `KEYS`."""
        if len(packet.payload) < _EVENT.size:
            return None
        event, flags, duration = _EVENT.unpack_from(packet.payload)
        if event >= len(KEYS):
            return None
        step = (packet.timestamp - self._timestamp + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        if packet.ssrc == self._ssrc and step <= 0:
            # Again the same press, or one before it that comes late.
            if step == 0:
                self._duration = max(self._duration, duration)
                self._is_over = self._is_over or bool(flags & _END)
            return None
        goes_on = not self._is_over and packet.ssrc == self._ssrc and event == self._event and step == self._duration
        self._ssrc, self._event, self._timestamp = packet.ssrc, event, packet.timestamp
        self._duration, self._is_over = duration, bool(flags & _END)
        return None if goes_on else KEYS[event]
