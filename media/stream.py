"""The sound of one open WebRTC call: SRTP and SRTCP in and out, decoded, encoded, reported.

It begins when DTLS is up and ends with a BYE. Packets are decrypted and decoded where their datagram
arrives, and encoded, encrypted and sent where the pacer ticks: there is no task and no queue. Nothing
that a caller sends may raise out of here.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass

from aiortc.rtp import RtcpByePacket, RtcpPacket, RtcpRrPacket, RtcpSrPacket

from media.aiortc_private import Wire
from media.inbound import Inbound
from media.outbound import Outbound
from media.pacer import Pacer

logger = logging.getLogger(__name__)

_REPORT_S = 1.0
"""Seconds between RTCP reports, varied by half either way (RFC 3550 section 6.2)."""


@dataclass(slots=True)
class Refused:
    """What came in and could not be used."""

    undecryptable: int = 0
    malformed: int = 0


class AudioStream:
    """A member of the pacer while there is something to say, or something that may be waited for."""

    def __init__(self, wire: Wire, inbound: Inbound, outbound: Outbound, pacer: Pacer, refused: Refused) -> None:
        self._wire = wire
        self._inbound = inbound
        self._outbound = outbound
        self._pacer = pacer
        self._refused = refused
        self._is_polled = False
        self._is_over = False
        self._report_at = time.monotonic() + _REPORT_S * random.random() / 2
        self.heard_at = time.monotonic()
        """When the latest packet came that was the caller's own."""

    @property
    def last_sent_at(self) -> float | None:
        return self._outbound.last_sent_at

    def stats(self) -> dict[str, float]:
        return {**self._inbound.stats(), **self._outbound.stats()}

    def datagram(self, data: bytes, now: float) -> None:
        """One encrypted RTP or RTCP packet; after the end they are dropped."""
        self._pacer.catch_up(now)
        if self._is_over:
            return
        try:
            if len(data) > 1 and 192 <= data[1] <= 223:
                self._on_rtcp(self._wire.decrypt_rtcp(data), now)
            else:
                self._on_rtp(self._wire.decrypt_rtp(data), now)
        except Exception:
            self._refused.malformed += 1
            logger.exception("a packet could not be handled; the call goes on")

    def _on_rtp(self, plain: bytes | None, now: float) -> None:
        if plain is None:
            self._refused.undecryptable += 1
            return
        self.heard_at = now
        self._inbound.packet(plain, now)
        if not self._is_polled and not self._is_over:  # a listener may have ended it just now
            self._is_polled = True
            self._pacer.poll(self)

    def _on_rtcp(self, plain: bytes | None, now: float) -> None:
        if plain is None:
            self._refused.undecryptable += 1
            return
        self.heard_at = now
        try:
            packets = RtcpPacket.parse(plain)
        except Exception:
            self._refused.malformed += 1
            return
        for packet in packets:
            if isinstance(packet, RtcpSrPacket):
                self._inbound.statistics.sender_report(packet.ssrc, packet.sender_info.ntp_timestamp, now)
            if isinstance(packet, RtcpSrPacket | RtcpRrPacket):
                for block in packet.reports:
                    self._outbound.reported(block, now)

    def wake(self) -> None:
        """Sound was pushed into an idle playout: its first frame leaves now if one is due."""
        now = time.monotonic()
        if self._outbound.is_due(now):
            self._outbound.run(now)
        if self._outbound.is_active and not self._is_over:
            self._pacer.add(self, self._outbound.media_at)

    def on_tick(self, now: float) -> None:
        """Every 20 ms while there is something to say."""
        self._outbound.run(now)
        if not self._outbound.is_active:
            self._pacer.remove(self)

    def on_poll(self, now: float) -> None:
        """Every 40 ms while there may be something to give up waiting for."""
        if self._inbound.next_poll is None:
            self._is_polled = False
            self._pacer.unpoll(self)
        else:
            self._inbound.tick(now)

    def report(self, now: float) -> None:
        """Called some times a second: send the RTCP report when it is due."""
        if now < self._report_at:
            return
        self._report_at = now + _REPORT_S * (0.5 + random.random())
        block = self._inbound.statistics.report_block(now)
        self._wire.send_rtcp(self._outbound.report(now, time.time(), block))

    def end(self) -> None:
        """Leave the pacer and say goodbye."""
        self._is_over = True
        self._pacer.remove(self)
        self._pacer.unpoll(self)
        ssrc = self._outbound.statistics.ssrc
        self._wire.send_rtcp(bytes(RtcpRrPacket(ssrc=ssrc)) + bytes(RtcpByePacket(sources=[ssrc])))
