"""Decrypted packets to sound: the right length, whatever comes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.inbound import Inbound
from media.opus import SILENCE_PACKET, OpusEncoder
from media.rtp import RtpPacket
from tests.media.webrtc import loudest_hz, tone


class Hearing:
    def __init__(self):
        self.audio = []
        self.times = []
        self.inbound = Inbound(111, self._on_audio)
        self.now = 50.0

    def _on_audio(self, pcm, arrived_at):
        assert 1 <= len(pcm) <= 1920
        self.audio.append(pcm)
        self.times.append(arrived_at)

    def packet(self, sequence, payload=SILENCE_PACKET, *, payload_type=111, ssrc=1, step=0.02):
        packet = RtpPacket(payload_type, sequence & 0xFFFF, sequence * 960 & 0xFFFFFFFF, ssrc, payload)
        self.inbound.packet(packet.serialize(), self.now)
        self.now += step

    @property
    def samples(self):
        return sum(len(pcm) for pcm in self.audio)


def speech(frames):
    encoder = OpusEncoder()
    pcm = tone(frames * 0.02, 24_000)
    return [encoder.encode(pcm[n * 480 : (n + 1) * 480]) for n in range(frames)]


def test_packets_become_sound_at_once():
    hearing = Hearing()
    for n, payload in enumerate(speech(25)):
        hearing.packet(n, payload)
        assert hearing.samples == (n + 1) * 320
        assert hearing.times[-1] == pytest.approx(50.0 + n * 0.02)
    assert loudest_hz(np.concatenate(hearing.audio[5:]), 16_000) == pytest.approx(440, abs=5)


def test_a_lost_packet_is_taken_out_of_the_one_after_it_where_it_has_a_copy():
    hearing, encoder = Hearing(), OpusEncoder()
    encoder.expect_loss(0.1)
    pcm = tone(0.4, 24_000)
    payloads = [encoder.encode(pcm[n * 480 : (n + 1) * 480]) for n in range(20)]
    for n in (*range(8), *range(9, 14), *range(16, 20)):
        hearing.packet(n, payloads[n])
    stats = hearing.inbound.stats()
    assert (stats["recovered_ms"], stats["concealed_ms"]) == (40, 20)
    assert hearing.samples == 20 * 320


def test_a_lost_packet_is_concealed_once_it_is_given_up():
    hearing = Hearing()
    payloads = speech(20)
    for n in (*range(8), *range(9, 20)):
        hearing.packet(n, payloads[n])
    assert hearing.samples == 20 * 320
    assert hearing.inbound.stats()["concealed_ms"] == 20
    assert hearing.inbound.stats()["packets_lost"] == 1
    lost = hearing.audio[8].astype(float)
    assert np.sqrt(np.mean(lost**2)) > 1000, "concealment goes on with the tone"


def test_what_does_not_decode_is_concealed_and_counted():
    hearing = Hearing()
    for n, payload in enumerate([SILENCE_PACKET, b"\xff" * 40, b"\xfb", SILENCE_PACKET]):
        hearing.packet(n, payload)
    assert hearing.samples == 4 * 320
    assert hearing.inbound.stats()["packets_corrupt"] == 2


def test_other_payload_types_and_garbage_are_counted_and_dropped():
    hearing = Hearing()
    hearing.packet(0, payload_type=0)
    hearing.packet(1, payload_type=126)
    hearing.inbound.packet(b"", hearing.now)
    hearing.inbound.packet(b"\x80" * 11, hearing.now)
    assert hearing.samples == 0
    assert hearing.inbound.stats()["packets_unknown"] == 4
    assert hearing.inbound.next_poll is None


def test_a_sender_that_falls_silent_is_filled_up_in_time():
    hearing = Hearing()
    for n in range(5):
        hearing.packet(n)
    while (due := hearing.inbound.next_poll) is not None:
        assert due > hearing.now - 1
        hearing.now = max(hearing.now, due)
        hearing.inbound.poll(hearing.now)
    assert hearing.samples > 5 * 320
    assert hearing.now < 60


def test_a_stall_of_this_process_is_not_taken_for_silence():
    hearing = Hearing()
    for n in range(10):
        hearing.packet(n)
        hearing.inbound.tick(hearing.now)
    hearing.now += 0.3  # nothing ran; fifteen packets wait to be read, and the timers come first
    hearing.inbound.tick(hearing.now)
    assert hearing.samples == 10 * 320
    for n in range(10, 26):
        hearing.packet(n, step=0.0)
    hearing.inbound.tick(hearing.now + 0.04)
    assert hearing.samples == 26 * 320


def test_a_sender_that_falls_silent_is_noticed_by_the_tick():
    hearing = Hearing()
    for n in range(5):
        hearing.packet(n)
    for _ in range(10):
        hearing.now += 0.04
        hearing.inbound.tick(hearing.now)
    assert hearing.samples >= 15 * 320


def test_a_new_stream_goes_on_where_the_old_one_ended():
    hearing = Hearing()
    for n in range(5):
        hearing.packet(n)
    for n in range(5):
        hearing.packet(40_000 + n, ssrc=2)
    assert hearing.samples == 10 * 320
    assert hearing.inbound.stats()["packets_received"] == 10


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.binary(max_size=60), st.sampled_from((1, 2))),
        max_size=60,
    )
)
def test_no_packet_raises_or_makes_more_sound_than_time_allows(packets):
    hearing = Hearing()
    for sequence, timestamp, payload, ssrc in packets:
        hearing.inbound.packet(RtpPacket(111, sequence, timestamp, ssrc, payload).serialize(), hearing.now)
        hearing.now += 0.02
        hearing.inbound.poll(hearing.now)
    real = len(packets) * 5760 / 3
    assert hearing.samples <= real + (2.0 + hearing.now - 50.0) * 16_000
