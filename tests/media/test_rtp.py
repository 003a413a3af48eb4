"""RTP packets by round trip and by hand, statistics against RFC 3550's arithmetic."""

import struct

import pytest
from aiortc.rtp import RtcpPacket, RtcpReceiverInfo, RtcpRrPacket, RtcpSdesPacket, RtcpSrPacket
from aiortc.rtp import RtpPacket as Reference
from hypothesis import given
from hypothesis import strategies as st

from media.rtp import ReceiverStatistics, RtpError, RtpPacket, SenderStatistics

u16 = st.integers(0, 0xFFFF)
u32 = st.integers(0, 0xFFFFFFFF)


def packet(sequence, timestamp=0, ssrc=1):
    return RtpPacket(96, sequence & 0xFFFF, timestamp & 0xFFFFFFFF, ssrc, b"x")


class TestPacket:
    @given(st.integers(0, 127), u16, u32, u32, st.binary(max_size=1500), st.booleans())
    def test_what_is_serialized_parses_to_the_same(self, payload_type, sequence, timestamp, ssrc, payload, marker):
        original = RtpPacket(payload_type, sequence, timestamp, ssrc, payload, marker)
        assert RtpPacket.parse(original.serialize()) == original

    @given(st.integers(0, 127), u16, u32, u32, st.binary(max_size=100), st.booleans())
    def test_another_implementation_reads_it(self, payload_type, sequence, timestamp, ssrc, payload, marker):
        data = RtpPacket(payload_type, sequence, timestamp, ssrc, payload, marker).serialize()
        other = Reference.parse(data)
        assert (other.payload_type, other.sequence_number, other.timestamp) == (payload_type, sequence, timestamp)
        assert (other.ssrc, other.payload, bool(other.marker)) == (ssrc, payload, marker)

    def test_sources_extension_and_padding_are_left_out_of_the_payload(self):
        header = struct.pack("!BBHII", 0x80 | 0x20 | 0x10 | 2, 0x80 | 111, 7, 8, 9)
        data = header + bytes(8) + struct.pack("!HH", 0xBEDE, 1) + b"\x10\xff\x00\x00" + b"sound" + b"\x00\x00\x03"
        assert RtpPacket.parse(data) == RtpPacket(111, 7, 8, 9, b"sound", True)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"\x80" * 11,
            b"\x00" * 20,
            b"\x40" + bytes(19),
            b"\xc0" + bytes(19),
            b"\x82" + bytes(11),
            b"\x82" + bytes(18),
            b"\x90" + bytes(14),
            b"\x90" + bytes(11) + b"\xbe\xde\xff\xff" + bytes(40),
            b"\xa0" + bytes(11),
            b"\xa0" + bytes(11) + b"abc\x00",
            b"\xa0" + bytes(11) + b"abc\x05",
        ],
        ids=lambda data: data[:4].hex() + f"-{len(data)}",
    )
    def test_what_is_not_rtp_is_refused(self, data):
        with pytest.raises(RtpError):
            RtpPacket.parse(data)

    def test_padding_may_be_all_there_is(self):
        assert RtpPacket.parse(b"\xa0" + bytes(11) + b"\x00\x00\x03").payload == b""

    @given(st.binary(max_size=200))
    def test_any_bytes_parse_or_are_refused(self, data):
        try:
            parsed = RtpPacket.parse(data)
        except RtpError:
            return
        assert data[12:].find(parsed.payload) >= 0

    @pytest.mark.parametrize(
        "fields", [(128, 0, 0, 0), (-1, 0, 0, 0), (0, 65536, 0, 0), (0, 0, 1 << 32, 0), (0, 0, 0, -1)]
    )
    def test_fields_that_do_not_fit_are_refused(self, fields):
        with pytest.raises(RtpError):
            RtpPacket(*fields, b"").serialize()


class TestReceiver:
    def test_nothing_to_report_before_the_first_packet(self):
        statistics = ReceiverStatistics(48000)
        assert statistics.report_block(1.0) is None
        assert (statistics.packets_received, statistics.packets_lost, statistics.jitter_ms) == (0, 0, 0)

    def test_losses_are_reported_in_total_and_since_the_last_report(self):
        statistics = ReceiverStatistics(48000)
        for sequence in (10, 11, 13, 14):
            statistics.add(packet(sequence), 0)
        block = statistics.report_block(0)
        assert (block.packets_lost, block.fraction_lost, block.highest_sequence) == (1, 256 // 5, 14)
        for sequence in (15, 16, 17, 20):
            statistics.add(packet(sequence), 0)
        block = statistics.report_block(0)
        assert (block.packets_lost, block.fraction_lost) == (3, 2 * 256 // 6)
        assert statistics.report_block(0).fraction_lost == 0
        assert statistics.packets_lost == 3
        assert statistics.packets_received == 8

    def test_the_sequence_wraps(self):
        statistics = ReceiverStatistics(48000)
        for sequence in range(65530, 65546):
            statistics.add(packet(sequence), 0)
        block = statistics.report_block(0)
        assert (block.highest_sequence, block.packets_lost) == (65545, 0)

    def test_reordered_packets_are_no_loss(self):
        statistics = ReceiverStatistics(48000)
        for sequence in (1, 3, 2, 6, 4, 5):
            statistics.add(packet(sequence), 0)
        assert statistics.packets_lost == 0
        assert statistics.report_block(0).packets_lost == 0

    def test_duplicates_show_as_negative_loss_on_the_wire_only(self):
        statistics = ReceiverStatistics(48000)
        for sequence in (1, 2, 2, 2):
            statistics.add(packet(sequence), 0)
        block = statistics.report_block(0)
        assert (block.packets_lost, block.fraction_lost) == (-2, 0)
        assert RtcpReceiverInfo.parse(bytes(block)).packets_lost == -2
        assert statistics.packets_lost == 0

    def test_one_stray_packet_is_not_believed_two_are_a_restart(self):
        statistics = ReceiverStatistics(48000)
        for sequence in (1, 2, 4, 30000, 5):
            statistics.add(packet(sequence), 0)
        assert statistics.report_block(0).highest_sequence == 5
        for sequence in (30000, 30001, 30002):
            statistics.add(packet(sequence), 0)
        block = statistics.report_block(0)
        assert (block.highest_sequence, block.packets_lost) == (30002, 0)
        assert statistics.packets_lost == 1, "what was lost before the restart stays lost"
        assert statistics.packets_received == 6

    def test_another_source_begins_anew(self):
        statistics = ReceiverStatistics(48000)
        for sequence in (1, 3):
            statistics.add(packet(sequence), 0)
        statistics.sender_report(1, 5 << 32, 0)
        statistics.add(packet(500, ssrc=2), 0)
        block = statistics.report_block(1)
        assert (block.ssrc, block.packets_lost, block.highest_sequence, block.lsr) == (2, 0, 500, 0)
        assert (statistics.packets_received, statistics.packets_lost) == (3, 1)

    def test_steady_arrival_has_no_jitter_even_over_a_pause_and_a_wrap(self):
        statistics = ReceiverStatistics(48000)
        start = 0xFFFFFFFF - 960 * 20
        for index in [*range(50), *range(100, 150)]:
            statistics.add(packet(index, start + 960 * index), 5 + 0.02 * index)
        assert statistics.jitter_ms == pytest.approx(0, abs=1e-6)

    def test_jitter_is_the_running_mean_of_the_change_in_transit_time(self):
        statistics = ReceiverStatistics(48000)
        expected, previous = 0.0, None
        for index in range(200):
            transit = 0.01 * (index % 3)
            statistics.add(packet(index, 960 * index), 0.02 * index + transit)
            if previous is not None:
                expected += (abs(transit - previous) * 48000 - expected) / 16
            previous = transit
        assert statistics.jitter_ms == pytest.approx(expected / 48)
        assert statistics.report_block(9).jitter == pytest.approx(expected, abs=1)

    def test_last_sender_report_and_its_age_come_back(self):
        statistics = ReceiverStatistics(48000)
        statistics.add(packet(1, ssrc=7), 0)
        statistics.sender_report(7, 0x1122334455667788, 10.0)
        block = statistics.report_block(10.5)
        assert (block.lsr, block.dlsr) == (0x33445566, 32768)
        statistics.sender_report(8, 0x1122334455667788, 11.0)
        assert statistics.report_block(12).lsr == 0

    @given(st.lists(st.tuples(u16, u32, st.integers(0, 2), st.floats(0, 1e6)), max_size=60))
    def test_any_stream_gives_a_report_that_fits_the_wire(self, stream):
        statistics = ReceiverStatistics(48000)
        for sequence, timestamp, ssrc, at in stream:
            statistics.sender_report(ssrc, timestamp << 32 | timestamp, at)
            statistics.add(RtpPacket(96, sequence, timestamp, ssrc, b""), at)
            block = statistics.report_block(at + 1)
            assert RtcpReceiverInfo.parse(bytes(block)) == block
            assert 0 <= block.fraction_lost <= 255
            assert statistics.packets_lost >= 0


class TestSender:
    def sender(self):
        return SenderStatistics(0xABCD, "someone@here", 48000)

    def test_report_carries_counts_both_clocks_and_the_name(self):
        sender = self.sender()
        sender.sent(100, 5000, 10.0)
        sender.sent(60, 5960, 10.02)
        block = RtcpReceiverInfo(1, 2, 3, 4, 5, 6, 7)
        report, description = RtcpPacket.parse(sender.sender_report(10.12, 1_700_000_000.5, block))
        assert isinstance(report, RtcpSrPacket)
        assert isinstance(description, RtcpSdesPacket)
        info = report.sender_info
        assert (report.ssrc, info.packet_count, info.octet_count) == (0xABCD, 2, 160)
        assert info.rtp_timestamp == 5960 + 4800, "the media clock at the time of the report"
        assert info.ntp_timestamp >> 32 == 1_700_000_000 + 2_208_988_800
        assert info.ntp_timestamp & 0xFFFFFFFF == pytest.approx(1 << 31, abs=1 << 12)
        assert report.reports == [block]
        assert [(chunk.ssrc, chunk.items) for chunk in description.chunks] == [(0xABCD, [(1, b"someone@here")])]
        assert (sender.packets_sent, sender.bytes_sent) == (2, 160)

    def test_who_has_sent_nothing_only_reports_what_it_received(self):
        first, second = RtcpPacket.parse(self.sender().sender_report(1.0, 2.0, RtcpReceiverInfo(1, 0, 0, 0, 0, 0, 0)))
        assert isinstance(first, RtcpRrPacket)
        assert [block.ssrc for block in first.reports] == [1]
        assert isinstance(second, RtcpSdesPacket)
        assert RtcpPacket.parse(self.sender().sender_report(1.0, 2.0))[0].reports == []

    def test_counters_and_timestamps_wrap_on_the_wire(self):
        sender = self.sender()
        sender.sent(1 << 32, 0xFFFFFFFF, 0.0)
        (report, _) = RtcpPacket.parse(sender.sender_report(1.0, 0.0))
        assert (report.sender_info.octet_count, report.sender_info.rtp_timestamp) == (0, 47999)

    def answer(self, compound, delay_s, ssrc=0xABCD, fraction=64):
        report = RtcpPacket.parse(compound)[0]
        middle = report.sender_info.ntp_timestamp >> 16 & 0xFFFFFFFF
        return RtcpReceiverInfo(ssrc, fraction, 0, 0, 0, middle, round(delay_s * 65536))

    def test_round_trip_is_the_time_until_the_answer_less_its_delay(self):
        sender = self.sender()
        sender.sent(1, 1, 0.0)
        assert sender.round_trip_ms is None
        block = self.answer(sender.sender_report(10.0, 1e9), 1.5)
        sender.receiver_report(block, 11.58)
        assert sender.round_trip_ms == pytest.approx(80, abs=0.1)
        assert sender.fraction_lost == 0.25

    def test_answers_about_others_or_to_nothing_change_nothing(self):
        sender = self.sender()
        sender.sent(1, 1, 0.0)
        compound = sender.sender_report(10.0, 1e9)
        sender.receiver_report(self.answer(compound, 0, ssrc=1), 11.0)
        assert (sender.round_trip_ms, sender.fraction_lost) == (None, 0)
        sender.receiver_report(RtcpReceiverInfo(0xABCD, 0, 0, 0, 0, 12345, 0), 11.0)
        sender.receiver_report(RtcpReceiverInfo(0xABCD, 0, 0, 0, 0, 0, 0), 11.0)
        assert sender.round_trip_ms is None

    def test_an_impossible_delay_is_no_round_trip(self):
        sender = self.sender()
        sender.sent(1, 1, 0.0)
        sender.receiver_report(self.answer(sender.sender_report(10.0, 1e9), 5000.0), 10.1)
        assert sender.round_trip_ms is None

    def test_an_answer_to_a_report_long_gone_is_no_round_trip(self):
        sender = self.sender()
        sender.sent(1, 1, 0.0)
        old = self.answer(sender.sender_report(10.0, 1e9), 0)
        for second in range(100):
            sender.sender_report(11.0 + second, 1e9 + 1 + second)
        sender.receiver_report(old, 112.0)
        assert sender.round_trip_ms is None
