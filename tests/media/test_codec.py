"""Every codec of a WebRTC call: sound through it and back, packets lost, payloads that are none."""

import itertools

import numpy as np
import pytest

from media.codec import CODECS, PCMA, PCMU
from media.inbound import Inbound
from media.outbound import Outbound
from media.playout import Playout
from media.rtp import RtpPacket
from tests.media.webrtc import loudest_hz, rms, tone

FRAMES = 50


@pytest.fixture(params=CODECS)
def codec(request):
    return CODECS[request.param]


@pytest.fixture(params=[PCMU, PCMA], ids=lambda law: law.name)
def law(request):
    return request.param


def packets(codec, seconds=FRAMES * 0.02):
    """A tone as an `Outbound` sends it."""
    sent, playout = [], Playout()
    outbound = Outbound(
        playout=playout,
        payload_type=8,
        ssrc=7,
        cname="c",
        send=lambda packet: not sent.append(RtpPacket.parse(packet)),
        on_event=lambda event: None,
        codec=codec,
        send_silence=True,
    )
    playout.push(1, tone(seconds, 24_000))
    playout.finish(1)
    for n in range(round(seconds * 50) + 10):
        outbound.run(100 + n * 0.02)
    return sent


def hear(codec, arriving):
    """What an `Inbound` makes of packets; None is one that never comes."""
    heard = []
    inbound = Inbound(8, lambda pcm, at: heard.append(pcm), codec=codec)
    for n, packet in enumerate(arriving):
        now = 50 + n * 0.02
        if packet is not None:
            inbound.packet(packet.serialize(), now)
        inbound.tick(now)
    return inbound, heard


def test_a_tone_comes_out_as_it_went_in(codec):
    sent = packets(codec)
    steps = {(b.timestamp - a.timestamp) & 0xFFFFFFFF for a, b in itertools.pairwise(sent)}
    assert steps == {codec.clock_rate // 50}
    inbound, heard = hear(codec, sent[:FRAMES])
    sound = np.concatenate(heard)
    assert len(sound) == FRAMES * 320
    assert loudest_hz(sound[3200:], 16_000) == pytest.approx(440, abs=5)
    assert rms(sound[3200:]) == pytest.approx(rms(tone(1, 24_000)), rel=0.05)
    assert inbound.stats()["packets_corrupt"] == 0


def test_its_silence_is_silent(codec):
    last = packets(codec)[-1]
    assert last.payload == codec.silence
    assert codec.duration(codec.silence) == 960
    assert np.abs(codec.decoder().decode(codec.silence)).max() < 16


def test_what_is_no_payload_of_it_is_refused_and_the_next_one_decodes(codec):
    decoder, good = codec.decoder(), packets(codec)[5].payload
    for bad in (b"", b"\xfb" * 2000):
        with pytest.raises(ValueError):
            decoder.decode(bad)
    assert len(decoder.decode(good)) == 320


def test_a_lost_packet_goes_on_with_the_voice_and_a_long_gap_falls_silent(law):
    arriving = packets(law)[:FRAMES]
    arriving[20] = None
    inbound, heard = hear(law, arriving)
    assert sum(map(len, heard)) == FRAMES * 320
    assert inbound.stats()["concealed_ms"] == 20
    sound = np.concatenate(heard)
    gap = sound[20 * 320 : 21 * 320]
    assert rms(gap) > 0.7 * rms(sound[18 * 320 : 20 * 320])
    assert loudest_hz(sound[19 * 320 : 22 * 320], 16_000) == pytest.approx(440, abs=20), "without a jump of phase"

    decoder = law.decoder()
    for packet in packets(law)[:10]:
        decoder.decode(packet.payload)
    made = [decoder.conceal(960) for _ in range(5)]
    assert rms(made[0]) > rms(made[1]) > rms(made[2])
    assert np.abs(made[4]).max() == 0


def test_a_packet_lost_before_anything_was_heard_is_silence(law):
    assert not law.decoder().conceal(960).any()


@pytest.mark.parametrize("ms", [10, 30, 60, 120])
def test_packets_of_other_lengths_are_heard_whole(law, ms):
    voice = np.concatenate([np.frombuffer(packet.payload, np.uint8) for packet in packets(law, 1.2)])[: 1200 * 8]
    size, heard = ms * 8, []
    inbound = Inbound(8, lambda pcm, at: heard.append(pcm), codec=law)
    for n in range(1200 // ms):
        payload = voice[n * size : (n + 1) * size].tobytes()
        inbound.packet(RtpPacket(8, n, n * size, 7, payload).serialize(), 50 + n * ms / 1000)
    assert sum(map(len, heard)) == 1200 * 16
    assert inbound.concealed_samples == 0
