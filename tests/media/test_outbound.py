"""Frames out as packets under a virtual clock: pauses, stalls, re-entrance, reports."""

import numpy as np
import pytest
from aiortc.rtp import RtcpPacket, RtcpReceiverInfo, RtcpRrPacket, RtcpSdesPacket, RtcpSrPacket
from hypothesis import given, settings
from hypothesis import strategies as st

from media.opus import SILENCE_PACKET
from media.outbound import Outbound
from media.playout import Playout, PlayoutEventKind
from media.rtp import RtpPacket
from tests.media.webrtc import tone


class Line:
    """An Outbound whose packets are kept; `tick` is the pacer's."""

    def __init__(self, **options):
        self.now = 100.0
        self.playout = Playout()
        self.packets: list[RtpPacket] = []
        self.events = []
        self.is_blocked = False
        self.outbound = Outbound(
            playout=self.playout,
            payload_type=111,
            ssrc=7,
            cname="c",
            send=self._send,
            on_event=self._on_event,
            **options,
        )
        self.then = None

    def _send(self, data):
        if not self.is_blocked:
            self.packets.append(RtpPacket.parse(data))
        return not self.is_blocked

    def _on_event(self, event):
        self.events.append(event)
        if self.then is not None:
            self.then(event)

    def tick(self, times=1, step=0.02):
        for _ in range(times):
            self.outbound.run(self.now)
            self.now += step

    def say(self, generation, seconds, finish=True):
        assert self.playout.push(generation, tone(seconds, 24_000))
        if finish:
            self.playout.finish(generation)

    def steps(self):
        return [
            (b.sequence - a.sequence & 0xFFFF, (b.timestamp - a.timestamp & 0xFFFFFFFF) / 960, b.marker)
            for a, b in zip(self.packets, self.packets[1:], strict=False)
        ]


def test_frames_leave_as_consecutive_packets_and_the_first_is_marked():
    line = Line()
    line.say(1, 0.2)
    line.tick(20)
    assert len(line.packets) == 10
    assert all((p.payload_type, p.ssrc) == (111, 7) for p in line.packets)
    assert line.packets[0].marker
    assert line.steps() == [(1, 1, False)] * 9
    assert [e.kind for e in line.events] == [PlayoutEventKind.STARTED, PlayoutEventKind.DONE]
    assert not line.outbound.is_active


@pytest.mark.parametrize(("pause", "frames"), [(0.02, 1), (0.05, 2), (1.0, 50), (3600.0, 180_000)])
def test_timestamps_run_on_over_a_pause_and_sequence_numbers_do_not(pause, frames):
    line = Line()
    line.say(1, 0.02)
    line.tick(1, step=pause)
    line.tick(1, step=0.0)
    line.say(2, 0.02)
    line.tick()
    ((sequence, step, marker),) = line.steps()
    assert (sequence, marker) == (1, True) if pause > 0.02 else sequence == 1
    assert step == pytest.approx(frames, abs=1)
    assert step == int(step)


def test_no_frame_leaves_ahead_of_its_time():
    line = Line()
    line.say(1, 0.2)
    line.tick(30, step=0.001)
    assert len(line.packets) == 2


def test_a_stall_is_caught_up_by_one_frame_and_leaves_a_hole_in_time():
    line = Line()
    line.say(1, 1.0)
    line.tick(3)
    line.now += 0.2
    line.tick(1, step=0.0)
    line.tick(3)
    # Ten were missed: nine are a hole, and no second burst follows.
    assert [step for _, step, _ in line.steps()] == [1, 1, 10, 1, 1, 1][: len(line.steps())]
    assert len(line.packets) == 3 + 4
    assert (line.packets[-1].timestamp - line.packets[0].timestamp & 0xFFFFFFFF) / 48_000 == pytest.approx(
        line.now - 0.02 - 100.0, abs=0.021
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.0, 0.3), min_size=1, max_size=60))
def test_media_time_never_runs_ahead_of_the_clock_nor_falls_behind_for_good(steps):
    line = Line()
    line.say(1, 5.0, finish=False)
    first = None
    for step in steps:
        line.now += step
        before = len(line.packets)
        line.outbound.run(line.now)
        line.outbound.run(line.now)
        if first is None and line.packets:
            first = (line.packets[0].timestamp, line.now)
        assert len(line.packets) - before <= 2
        if len(line.packets) > before:
            media = (line.packets[-1].timestamp - first[0] & 0xFFFFFFFF) / 48_000
            assert -0.0401 <= media - (line.now - first[1]) <= 0.0051
    assert [sequence for sequence, _, _ in line.steps()] == [1] * (len(line.packets) - 1)


def test_a_packet_that_cannot_be_sent_is_dropped_and_time_goes_on():
    line = Line()
    line.say(1, 0.2)
    line.tick(2)
    line.is_blocked = True
    line.tick(3)
    line.is_blocked = False
    line.tick(5)
    assert line.outbound.packets_dropped == 3
    assert line.steps() == [(1, 1, False), (1, 4, False)] + [(1, 1, False)] * 4


def test_what_is_pushed_at_the_end_of_an_utterance_leaves_with_the_next_tick():
    line = Line()

    def then(event):
        if event.kind is PlayoutEventKind.DONE and event.generation < 4:
            line.say(event.generation + 1, 0.04)
            line.outbound.run(line.now)

    line.then = then
    line.say(1, 0.04)
    line.tick(12)
    assert len(line.packets) == 8
    assert [p.marker for p in line.packets] == [True] + [False] * 7


def test_a_listener_that_always_adds_an_empty_utterance_does_not_loop_for_ever():
    line = Line()

    def then(event):
        if event.kind is PlayoutEventKind.DONE:
            line.playout.finish(event.generation + 1)
            line.outbound.run(line.now)

    line.then = then
    line.playout.finish(1)
    line.tick()
    assert 1 <= len(line.events) <= 300


def test_pauses_are_filled_with_silence_when_asked_for():
    line = Line(send_silence=True)
    line.tick(5)
    line.say(1, 0.1)
    line.tick(10)
    assert len(line.packets) == 15
    assert line.steps() == [(1, 1, False)] * 14
    assert [p.payload == SILENCE_PACKET for p in line.packets] == [True] * 5 + [False] * 5 + [True] * 5
    assert line.outbound.is_active


def test_a_cut_utterance_leaves_no_packet_but_its_fade():
    line = Line()
    line.say(1, 1.0)
    line.tick(5)
    line.playout.cut()
    line.tick(10)
    assert len(line.packets) == 6
    line.say(2, 0.04)
    line.tick(5)
    assert line.steps()[5:] == [(1, 10, True), (1, 1, False)]


def test_reports_are_sender_reports_while_sending_and_receiver_reports_otherwise():
    line = Line()
    first = RtcpPacket.parse(line.outbound.report(line.now, 1e9, None))
    assert [type(p) for p in first] == [RtcpRrPacket, RtcpSdesPacket]
    line.say(1, 0.2)
    line.tick(10)
    sending, names = RtcpPacket.parse(line.outbound.report(line.now, 1e9, None))
    assert isinstance(sending, RtcpSrPacket)
    assert (sending.ssrc, sending.sender_info.packet_count) == (7, 10)
    assert names.chunks[0].items == [(1, b"c")]
    line.now += 3.0
    later, names = RtcpPacket.parse(line.outbound.report(line.now, 1e9, None))
    assert isinstance(later, RtcpRrPacket)
    assert names.chunks[0].items == [(1, b"c")]


def test_encoded_frames_hold_the_sound():
    from media.opus import OpusDecoder

    line = Line()
    line.say(1, 0.5)
    line.tick(25)
    decoder = OpusDecoder()
    pcm = np.concatenate([decoder.decode(p.payload) for p in line.packets])
    assert np.abs(pcm[1600:].astype(float)).max() == pytest.approx(8192, rel=0.1)


def report(fraction: float, ssrc: int = 7) -> RtcpReceiverInfo:
    return RtcpReceiverInfo(
        ssrc=ssrc, fraction_lost=round(fraction * 256), packets_lost=0, highest_sequence=0, jitter=0, lsr=0, dlsr=0
    )


def test_packets_carry_copies_while_the_other_side_reports_losses():
    line = Line()
    line.say(1, 4, finish=False)
    modes = []
    for fractions in ([0.0], [0.1], [0.1], [0.0], [0.0] * 10):
        for fraction in fractions:
            line.outbound.reported(report(fraction), line.now)
            line.outbound.reported(report(0.5, ssrc=8), line.now)
        line.tick(20)
        modes.append("low delay" if line.packets[-1].payload[0] >> 3 >= 16 else "guarded")
    assert modes == ["low delay", "guarded", "guarded", "guarded", "low delay"]
    assert all(step == (1, 1, False) for step in line.steps())
