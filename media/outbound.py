"""What is said to one caller: the playout's frames out as RTP packets, encoded once. Sans-I/O.

Nothing is encoded or sent while there is nothing to say, unless asked for: timestamps run on with
time over a pause, sequence numbers do not, and the first packet after a pause carries the marker.
Frames are never sent ahead of their time, and after a stall only one is made up for.

    PAUSED --frame--> TALKING --no frame--> PAUSED
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from enum import Enum

from aiortc.rtp import RtcpReceiverInfo, RtcpRrPacket, RtcpSdesPacket, RtcpSourceInfo

from media.audio import FRAME_S
from media.codec import OPUS, Codec
from media.playout import Playout, PlayoutEvent
from media.prepared import SharingEncoder
from media.rtp import RtpPacket, SenderStatistics

_SDES_CNAME = 1
_IDLE_REPORT_S = 2.0
"""Seconds without a packet, two report intervals, after which we are no sender (RFC 3550 section 6.4)."""
_EARLY_S = 0.005
"""Seconds by which a tick may come before its frame is due: phases are 2 ms wide, timers round."""
_LOSS_WEIGHT = 0.3
"""Of the latest report of what got lost, against all those before: browsers send one in one to five seconds."""
_MAX_RUNS = 4
"""Frames asked for at once when the owner, told of an end, adds something that ends at once too."""


class TalkState(Enum):
    PAUSED = "paused"
    TALKING = "talking"


class Outbound:
    """`send(packet)`: encrypts and sends one RTP packet, False when it could not. `on_event`: as
    `LegListener.on_playout`. `send_silence`: packets of silence fill every pause.
    """

    def __init__(
        self,
        *,
        playout: Playout,
        payload_type: int,
        ssrc: int,
        cname: str,
        send: Callable[[bytes], bool],
        on_event: Callable[[PlayoutEvent], None],
        codec: Codec = OPUS,
        send_silence: bool = False,
    ) -> None:
        self._playout = playout
        self._send = send
        self._on_event = on_event
        self._send_silence = send_silence
        self._encoder = SharingEncoder(codec.encoder())
        self._silence = codec.silence
        self._frame_ticks = round(codec.clock_rate * FRAME_S)
        self._state = TalkState.PAUSED
        self._payload_type = payload_type
        # The lower half, so that SRTP's rollover counter is not tested by an early wrap.
        self._sequence = secrets.randbits(15)
        self._timestamp = secrets.randbits(32)
        self._media_at: float | None = None
        self._is_running = False
        self._is_woken = False
        self._description = bytes(RtcpSdesPacket([RtcpSourceInfo(ssrc=ssrc, items=[(_SDES_CNAME, cname.encode())])]))
        self.statistics = SenderStatistics(ssrc, cname, codec.clock_rate)
        self._loss = 0.0
        self.packets_dropped = 0
        self.last_sent_at: float | None = None

    @property
    def is_active(self) -> bool:
        """Ticks are needed: something is being said, or will be when its next piece comes."""
        return (
            self._send_silence
            or self._state is TalkState.TALKING
            or self._playout.speaking is not None
            or not self._playout.idle
        )

    @property
    def media_at(self) -> float | None:
        """When the latest frame was due; None before the first."""
        return self._media_at

    def is_due(self, now: float) -> bool:
        """A frame may leave at `now`: the latest one is 20 ms old."""
        return self._media_at is None or now - self._media_at >= FRAME_S - _EARLY_S

    def stats(self) -> dict[str, float]:
        sent = self.statistics
        return {
            "packets_sent": sent.packets_sent,
            "bytes_sent": sent.bytes_sent,
            "packets_dropped": self.packets_dropped,
            "round_trip_ms": sent.round_trip_ms or 0.0,
            "fraction_lost": sent.fraction_lost,
        }

    def reported(self, block: RtcpReceiverInfo, now: float) -> None:
        """A report block of the other side: what gets lost decides how the next frames are encoded."""
        if self.statistics.receiver_report(block, now):
            self._loss += _LOSS_WEIGHT * (self.statistics.fraction_lost - self._loss)
            self._encoder.expect_loss(self._loss)

    def report(self, now: float, wall_now: float, block: RtcpReceiverInfo | None) -> bytes:
        """The RTCP report that is due, with `block` about what is received: SR while sending, RR otherwise."""
        if self.last_sent_at is not None and now - self.last_sent_at < _IDLE_REPORT_S:
            return self.statistics.sender_report(now, wall_now, block)
        blocks = [] if block is None else [block]
        return bytes(RtcpRrPacket(ssrc=self.statistics.ssrc, reports=blocks)) + self._description

    def run(self, now: float) -> None:
        """Send the frame that is due, if there is one, and tell what happened in the playout."""
        if self._is_running:
            # The listener, told of an event, has pushed more.
            self._is_woken = True
            return
        self._is_running = True
        try:
            for _ in range(_MAX_RUNS):
                self._is_woken = False
                if not self.is_due(now):
                    return
                self._run_once(now)
                if not self._is_woken:
                    return
        finally:
            self._is_running = False

    def _run_once(self, now: float) -> None:
        frame, events = self._playout.next_frame(now)
        if frame is not None:
            self._packet(self._encoder.encode(frame, self._playout.source), now)
            if self._playout.tap is not None and self._media_at is not None:
                self._playout.tap(frame, self._media_at)
        elif self._send_silence:
            self._packet(self._silence, now)
        else:
            self._state = TalkState.PAUSED
        for event in events:
            self._on_event(event)

    def _packet(self, payload: bytes, now: float) -> None:
        is_first = self._state is TalkState.PAUSED
        self._advance(now)
        packet = RtpPacket(
            payload_type=self._payload_type,
            sequence=self._sequence,
            timestamp=self._timestamp,
            ssrc=self.statistics.ssrc,
            payload=payload,
            marker=is_first,
        )
        self._state = TalkState.TALKING
        if not self._send(packet.serialize()):
            self.packets_dropped += 1
            return
        self._sequence = (self._sequence + 1) & 0xFFFF
        self.last_sent_at = now
        self.statistics.sent(len(payload), self._timestamp, now)

    def _advance(self, now: float) -> None:
        """Move the timestamp to the frame that leaves now."""
        if self._media_at is None:
            self._media_at = now
            return
        passed = now - self._media_at
        if self._state is TalkState.PAUSED:
            frames = max(1, round(passed / FRAME_S))
            self._media_at = now
        else:
            # One frame late is caught up by the tick that follows; later than that is a hole in time.
            frames = max(1, int((passed + _EARLY_S) / FRAME_S) - 1)
            self._media_at += frames * FRAME_S
        self._timestamp = (self._timestamp + frames * self._frame_ticks) & 0xFFFFFFFF
