"""RTP packets and the statistics both ends report about them (RFC 3550). Sans-I/O.

Every packet of every call passes here, so parsing is one `struct` call and a slice. Nothing in this
module trusts a field: a datagram that is not RTP raises `RtpError`, and whatever a packet or report
claims, the statistics stay finite and their reports fit the wire.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from struct import Struct
from struct import error as StructError

from aiortc.rtp import (
    RtcpReceiverInfo,
    RtcpRrPacket,
    RtcpSdesPacket,
    RtcpSenderInfo,
    RtcpSourceInfo,
    RtcpSrPacket,
)

_HEADER = Struct("!BBHII")
_EXTENSION = Struct("!HH")

_VERSION_2 = 2
_PLAIN = 0x80
"""First byte of a packet with version 2, no padding, no extension, no CSRC."""

_SEQUENCES = 1 << 16
_MAX_DROPOUT = 3000
"""Packets: a larger step forwards is a sender that restarted (RFC 3550 appendix A.1)."""
_MAX_MISORDER = 100
"""Packets: a larger step backwards is a sender that restarted (RFC 3550 appendix A.1)."""
_MAX_TRANSIT_S = 5.0
"""Seconds: a larger change of transit time is a clock that was set, not jitter."""

_NTP_EPOCH_S = 2_208_988_800
"""Seconds from the NTP epoch (1900) to the Unix epoch (1970)."""
_SDES_CNAME = 1
_REPORTS_REMEMBERED = 16
"""Sender reports whose sending time is kept; an answer to an older one says nothing about now."""


class RtpError(ValueError):
    """Not an RTP packet, or fields that do not fit one."""


@dataclass(slots=True)
class RtpPacket:
    """One packet without its CSRC list, extensions and padding: nothing here needs them."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes
    marker: bool = False

    @classmethod
    def parse(cls, data: bytes) -> RtpPacket:
        """Raises `RtpError`."""
        if len(data) < _HEADER.size:
            raise RtpError("shorter than an RTP header")
        first, second, sequence, timestamp, ssrc = _HEADER.unpack_from(data)
        if first == _PLAIN:
            return cls(second & 0x7F, sequence, timestamp, ssrc, data[12:], second > 0x7F)
        start, end = _payload_bounds(data, first)
        return cls(second & 0x7F, sequence, timestamp, ssrc, data[start:end], second > 0x7F)

    def serialize(self) -> bytes:
        """Raises `RtpError` when a field does not fit."""
        if not 0 <= self.payload_type <= 0x7F:
            raise RtpError("payload type does not fit 7 bits")
        second = self.payload_type | 0x80 if self.marker else self.payload_type
        try:
            return _HEADER.pack(_PLAIN, second, self.sequence, self.timestamp, self.ssrc) + self.payload
        except StructError as error:
            raise RtpError(str(error)) from error


def _payload_bounds(data: bytes, first: int) -> tuple[int, int]:
    """Where the payload begins and ends in a packet with CSRCs, an extension or padding."""
    if first >> 6 != _VERSION_2:
        raise RtpError("not RTP version 2")
    start = _HEADER.size + 4 * (first & 0x0F)
    end = len(data)
    if first & 0x10:
        if end < start + _EXTENSION.size:
            raise RtpError("truncated header extension")
        _, words = _EXTENSION.unpack_from(data, start)
        start += _EXTENSION.size + 4 * words
    if start > end:
        raise RtpError("truncated header")
    if first & 0x20:
        padding = data[-1]
        if padding == 0 or padding > end - start:
            raise RtpError("bad padding")
        end -= padding
    return start, end


class ReceiverStatistics:
    """What one receiver knows of the stream it hears: RFC 3550 appendices A.1, A.3 and A.8.

    `clock_rate`: Hz of the RTP timestamps. A new SSRC or a sequence that restarted begins a new
    count on the wire; `packets_received` and `packets_lost` go on over the whole call.
    """

    def __init__(self, clock_rate: int) -> None:
        self._clock_rate = clock_rate
        self._ssrc: int | None = None
        self._base = 0
        self._highest = 0
        self._cycles = 0
        self._bad: int | None = None
        self._received = 0
        self._expected_reported = 0
        self._received_reported = 0
        self._jitter = 0.0
        self._last_arrival = 0.0
        self._last_timestamp = 0
        self._earlier_received = 0
        self._earlier_lost = 0
        self._report_from: tuple[int, int, float] | None = None

    def add(self, packet: RtpPacket, arrived_at: float) -> None:
        if packet.ssrc != self._ssrc:
            self._restart(packet)
        elif not self._follow(packet.sequence):
            return
        elif self._received:
            step = (packet.timestamp - self._last_timestamp + 0x80000000 & 0xFFFFFFFF) - 0x80000000
            change = abs((arrived_at - self._last_arrival) * self._clock_rate - step)
            if change < _MAX_TRANSIT_S * self._clock_rate:
                self._jitter += (change - self._jitter) / 16
        self._received += 1
        self._last_arrival = arrived_at
        self._last_timestamp = packet.timestamp

    def _follow(self, sequence: int) -> bool:
        """Take in the next sequence number; False while it is not believed."""
        step = sequence - self._highest & 0xFFFF
        if step < _MAX_DROPOUT:
            if sequence < self._highest:
                self._cycles += _SEQUENCES
            self._highest = sequence
        elif step <= _SEQUENCES - _MAX_MISORDER:
            if sequence != self._bad:
                # One stray packet is no restart; two in a row are (appendix A.1).
                self._bad = sequence + 1 & 0xFFFF
                return False
            self._begin(sequence)
        return True

    def _restart(self, packet: RtpPacket) -> None:
        self._ssrc = packet.ssrc
        self._jitter = 0.0
        self._begin(packet.sequence)

    def _begin(self, sequence: int) -> None:
        self._earlier_lost += max(0, self._lost())
        self._earlier_received += self._received
        self._base = self._highest = sequence
        self._cycles = 0
        self._bad = None
        self._received = self._expected_reported = self._received_reported = 0

    def _expected(self) -> int:
        return self._cycles + self._highest - self._base + 1 if self._received else 0

    def _lost(self) -> int:
        return self._expected() - self._received

    def sender_report(self, ssrc: int, ntp_timestamp: int, arrived_at: float) -> None:
        """A sender report of the other side: its middle 32 bits come back in our next report block."""
        self._report_from = (ssrc, ntp_timestamp >> 16 & 0xFFFFFFFF, arrived_at)

    def report_block(self, now: float) -> RtcpReceiverInfo | None:
        """The block for the next report, None before the first packet. Starts a new interval."""
        if self._ssrc is None:
            return None
        expected, lost = self._expected(), self._lost()
        expected_since = expected - self._expected_reported
        lost_since = expected_since - (self._received - self._received_reported)
        self._expected_reported, self._received_reported = expected, self._received
        fraction = min(255, (lost_since << 8) // expected_since) if expected_since > 0 and lost_since > 0 else 0
        last, delay = 0, 0
        if self._report_from is not None and self._report_from[0] == self._ssrc:
            last = self._report_from[1]
            delay = min(0xFFFFFFFF, max(0, round((now - self._report_from[2]) * 65536)))
        return RtcpReceiverInfo(
            ssrc=self._ssrc,
            fraction_lost=fraction,
            packets_lost=min(0x7FFFFF, max(-0x800000, lost)),
            highest_sequence=self._cycles + self._highest & 0xFFFFFFFF,
            jitter=min(0xFFFFFFFF, int(self._jitter)),
            lsr=last,
            dlsr=delay,
        )

    @property
    def packets_received(self) -> int:
        return self._earlier_received + self._received

    @property
    def packets_lost(self) -> int:
        """Never negative: duplicates do not make up for losses of an earlier stream."""
        return self._earlier_lost + max(0, self._lost())

    @property
    def jitter_ms(self) -> float:
        return self._jitter / self._clock_rate * 1000


class SenderStatistics:
    """What one sender has sent, its reports, and what the other side reported back.

    `ssrc`, `cname`: of the stream we send; `clock_rate`: Hz of its timestamps, which must run on in
    real time while nothing is sent (the report extrapolates them).
    """

    def __init__(self, ssrc: int, cname: str, clock_rate: int) -> None:
        self.ssrc = ssrc
        self._clock_rate = clock_rate
        # The SDES item carries its length in one byte.
        chunk = RtcpSourceInfo(ssrc=ssrc, items=[(_SDES_CNAME, cname.encode()[:255])])
        self._description = bytes(RtcpSdesPacket(chunks=[chunk]))
        self._packets = 0
        self._bytes = 0
        self._timestamp = 0
        self._timestamp_at = 0.0
        self._reports: OrderedDict[int, float] = OrderedDict()
        self._round_trip_s: float | None = None
        self._fraction_lost = 0.0

    def sent(self, payload_bytes: int, rtp_timestamp: int, now: float) -> None:
        self._packets += 1
        self._bytes += payload_bytes
        self._timestamp = rtp_timestamp
        self._timestamp_at = now

    def sender_report(self, now: float, wall_now: float, block: RtcpReceiverInfo | None = None) -> bytes:
        """One compound packet: SR with `block`, and SDES. Before anything was sent it is an RR instead.

        `wall_now`: Unix seconds, only to tell the other side; round trips are measured by `now`.
        """
        blocks = [] if block is None else [block]
        if not self._packets:
            return bytes(RtcpRrPacket(ssrc=self.ssrc, reports=blocks)) + self._description
        ntp = round((wall_now + _NTP_EPOCH_S) * (1 << 32)) & 0xFFFFFFFFFFFFFFFF
        self._reports[ntp >> 16 & 0xFFFFFFFF] = now
        while len(self._reports) > _REPORTS_REMEMBERED:
            self._reports.popitem(last=False)
        elapsed = round((now - self._timestamp_at) * self._clock_rate)
        info = RtcpSenderInfo(
            ntp_timestamp=ntp,
            rtp_timestamp=self._timestamp + elapsed & 0xFFFFFFFF,
            packet_count=self._packets & 0xFFFFFFFF,
            octet_count=self._bytes & 0xFFFFFFFF,
        )
        return bytes(RtcpSrPacket(ssrc=self.ssrc, sender_info=info, reports=blocks)) + self._description

    def receiver_report(self, block: RtcpReceiverInfo, now: float) -> bool:
        """A report block of the other side; one about another stream is ignored, and False."""
        if block.ssrc != self.ssrc:
            return False
        self._fraction_lost = min(255, max(0, block.fraction_lost)) / 256
        sent_at = self._reports.get(block.lsr)
        if sent_at is None:
            return True
        round_trip = now - sent_at - block.dlsr / 65536
        # A delay longer than the time since our report is a lie or a rounding error.
        if round_trip > -0.001:
            self._round_trip_s = max(0.0, round_trip)
        return True

    @property
    def packets_sent(self) -> int:
        return self._packets

    @property
    def bytes_sent(self) -> int:
        """Payload bytes, as in the sender report."""
        return self._bytes

    @property
    def round_trip_ms(self) -> float | None:
        """None until the other side has answered one of our reports."""
        return None if self._round_trip_s is None else self._round_trip_s * 1000

    @property
    def fraction_lost(self) -> float:
        """0 to 1: of what we sent, what the other side missed in its last interval."""
        return self._fraction_lost
