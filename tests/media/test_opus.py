"""Opus against streams that PyAV's own encoder made: every mode, mono and stereo, losses and garbage."""

import functools
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media import libopus
from media.opus import SILENCE_PACKET, OpusDecoder, OpusEncoder, OpusError, carries_copy, packet_samples


@functools.cache
def stream(application="voip", layout="mono", frame_ms=20, bitrate=32_000, seconds=1.0, rate=48_000):
    """Packets of a 440 Hz tone, as a foreign encoder makes them."""
    encoder = av.CodecContext.create("libopus", "w")
    encoder.sample_rate, encoder.layout, encoder.format, encoder.bit_rate = rate, layout, "s16", bitrate
    encoder.options = {"application": application, "frame_duration": str(frame_ms)}
    encoder.open()
    tone = np.rint(8000 * np.sin(2 * np.pi * 440 * np.arange(int(rate * seconds)) / rate)).astype(np.int16)
    channels = 2 if layout == "stereo" else 1
    packets = []
    size = encoder.frame_size
    for start in range(0, len(tone) - size + 1, size):
        samples = np.repeat(tone[start : start + size], channels).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return tuple(packets)


def decoded(packets):
    decoder = OpusDecoder()
    return np.concatenate([decoder.decode(packet) for packet in packets])


def tone_at(pcm, rate=16_000):
    """Frequency and amplitude of the loudest partial."""
    window = np.hanning(len(pcm))
    spectrum = np.abs(np.fft.rfft(pcm * window))
    peak = int(spectrum.argmax())
    return peak * rate / len(pcm), 2 * spectrum[peak] / window.sum()


class TestPacketSamples:
    @pytest.mark.parametrize(
        ("payload", "samples"),
        [
            (b"\x00", 480),
            (b"\x18", 2880),
            (b"\x60", 480),
            (b"\x68", 960),
            (b"\x80", 120),
            (b"\xf8", 960),
            (b"\xfc", 960),
            (b"\xf9", 1920),
            (b"\xfa\x01", 1920),
            (b"\xfb\x03", 2880),
            (b"\x83\x30", 5760),
            (b"\xfb\xc6", 5760),
            (SILENCE_PACKET, 960),
        ],
        ids=lambda value: value.hex() if isinstance(value, bytes) else None,
    )
    def test_by_the_first_bytes(self, payload, samples):
        assert packet_samples(payload) == samples

    @pytest.mark.parametrize("payload", [b"", b"\xfb", b"\xfb\x00", b"\xfb\x07", b"\x1b\x03", b"\x83\x31"])
    def test_what_breaks_the_rules_is_refused(self, payload):
        with pytest.raises(OpusError):
            packet_samples(payload)

    @pytest.mark.parametrize("frame_ms", [2.5, 5, 10, 20, 40, 60, 80, 120])
    def test_agrees_with_what_an_encoder_makes(self, frame_ms):
        packets = stream("audio", "mono", frame_ms)
        assert {packet_samples(packet) for packet in packets} == {round(48 * frame_ms)}


class TestDecoder:
    @pytest.mark.parametrize("layout", ["mono", "stereo"])
    @pytest.mark.parametrize(
        ("application", "bitrate", "frame_ms"),
        [
            ("voip", 12_000, 20),
            ("voip", 24_000, 60),
            ("audio", 64_000, 20),
            ("lowdelay", 48_000, 2.5),
            ("audio", 96_000, 120),
        ],
    )
    def test_the_tone_comes_out_in_mono_at_16_khz(self, application, bitrate, frame_ms, layout):
        packets = stream(application, layout, frame_ms, bitrate)
        pcm = decoded(packets)
        assert pcm.dtype == np.int16
        assert len(pcm) == sum(packet_samples(packet) for packet in packets) // 3
        frequency, level = tone_at(pcm[3200:])
        assert frequency == pytest.approx(440, abs=3)
        assert level == pytest.approx(8000, rel=0.2)

    def test_each_packet_gives_all_its_samples_at_once(self):
        decoder = OpusDecoder()
        assert {len(decoder.decode(packet)) for packet in stream()} == {320}

    def test_a_second_channel_does_not_leak_in_halves(self):
        packets = stream("audio", "stereo", 20, 96_000)
        assert packets[5][0] & 4, "a stereo packet"
        decoder = OpusDecoder()
        lengths = [len(decoder.decode(packet)) for packet in (*stream()[:5], *packets[:5], *stream()[5:10])]
        assert lengths == [320] * 15

    def test_sound_above_what_16_khz_carries_is_gone(self):
        encoder = OpusEncoder(bitrate=128_000)
        times = np.arange(24_000) / 24_000
        audio = np.rint(8000 * np.sin(2 * np.pi * 10_000 * times)).astype(np.int16)
        decoder = OpusDecoder()
        pcm = np.concatenate([decoder.decode(encoder.encode(frame)) for frame in audio.reshape(-1, 480)])
        assert np.abs(pcm[3200:]).max() < 250

    def test_full_scale_is_clipped_not_wrapped(self):
        encoder = OpusEncoder(bitrate=256_000)
        square = np.where(np.arange(24_000) % 240 < 120, 32767, -32768).astype(np.int16)
        decoder = OpusDecoder()
        pcm = np.concatenate([decoder.decode(encoder.encode(frame)) for frame in square.reshape(-1, 480)])[3200:]
        assert np.abs(pcm).max() > 32_000
        # 100 Hz for 0.8 s: a sample that wrapped would change its sign twice more.
        assert np.count_nonzero(np.diff(np.sign(pcm[pcm != 0]))) <= 162

    def test_silence_decodes_to_silence(self):
        decoder = OpusDecoder()
        for _ in range(5):
            assert not decoder.decode(SILENCE_PACKET).any()


GARBAGE = {
    "empty": b"",
    "no frame count": b"\xff",
    "no frames": b"\xfb\x00",
    "too long": b"\xfb\x3f" + bytes(100),
    "odd pair": b"\xf9" + bytes(1),
    "lengths beyond the end": b"\xfa\xff\xff",
    "frame over 1275 bytes": b"\xf8" + bytes(1276),
    "pair over 1275 bytes": b"\xf9" + bytes(2600),
    "huge": b"\xfb\x06" + bytes(60_000),
    "padding beyond the end": b"\xfb\x41\xff\xff\xff",
}


class TestGarbage:
    @pytest.mark.parametrize("payload", GARBAGE.values(), ids=GARBAGE.keys())
    def test_is_refused_and_the_stream_goes_on_as_if_it_had_not_come(self, payload):
        packets = stream()
        clean = decoded(packets[:20])
        decoder = OpusDecoder()
        parts = []
        for packet in packets[:20]:
            with pytest.raises(OpusError):
                decoder.decode(payload)
            parts.append(decoder.decode(packet))
        np.testing.assert_array_equal(np.concatenate(parts), clean)

    @given(st.lists(st.binary(max_size=300), max_size=10), st.integers(1, 400))
    @settings(max_examples=60, deadline=None)
    def test_any_bytes_give_what_they_say_or_are_refused(self, payloads, cut):
        decoder = OpusDecoder()
        for payload in (*payloads, stream()[3][:cut]):
            try:
                pcm = decoder.decode(payload)
            except OpusError:
                pass
            else:
                assert len(pcm) == packet_samples(payload) // 3
            assert len(decoder.conceal(960)) == 320
        for packet in stream()[:25]:
            pcm = decoder.decode(packet)
        assert tone_at(pcm)[0] == pytest.approx(440, abs=50)


class TestConceal:
    @pytest.mark.parametrize(
        "arguments", [("voip", "mono", 20, 12_000), ("audio", "stereo", 20, 64_000), ("lowdelay", "mono", 20, 48_000)]
    )
    def test_one_lost_packet_sounds_like_what_came_before(self, arguments):
        packets = stream(*arguments)
        decoder = OpusDecoder()
        for packet in packets[:30]:
            decoder.decode(packet)
        pcm = decoder.conceal(960)
        assert len(pcm) == 320
        frequency, level = tone_at(pcm)
        assert frequency == pytest.approx(440, abs=60)
        assert level > 1500  # SILK lets a steady tone fade at once
        assert len(decoder.decode(packets[31])) == 320

    @pytest.mark.parametrize("frame_ms", [2.5, 10, 20, 60, 120])
    @pytest.mark.parametrize("samples", [0, 120, 960, 1000, 2880, 5760])
    def test_gives_as_much_as_is_asked_for_whatever_the_frame(self, frame_ms, samples):
        decoder = OpusDecoder()
        for packet in stream("audio", "mono", frame_ms)[:4]:
            decoder.decode(packet)
        assert len(decoder.conceal(samples)) == samples // 3

    def test_before_anything_was_heard_it_is_silence(self):
        pcm = OpusDecoder().conceal(960)
        assert len(pcm) == 320
        assert not pcm.any()

    def test_is_bounded(self):
        assert len(OpusDecoder().conceal(10**9)) <= 16_000
        assert len(OpusDecoder().conceal(-5)) == 0

    def test_a_first_byte_alone_is_concealed_too(self):
        decoder = OpusDecoder()
        for packet in stream()[:30]:
            decoder.decode(packet)
        pcm = decoder.decode(stream()[30][:1])
        assert tone_at(pcm)[0] == pytest.approx(440, abs=60)


class TestEncoder:
    def speak(self, **options):
        encoder = OpusEncoder(**options)
        tone = np.rint(8000 * np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000)).astype(np.int16)
        return [encoder.encode(frame) for frame in tone.reshape(-1, 480)]

    def test_every_frame_is_a_packet_of_20_ms_mono(self):
        packets = self.speak()
        assert len(packets) == 50
        assert {packet_samples(packet) for packet in packets} == {960}
        assert not any(packet[0] & 4 for packet in packets)

    def test_what_was_said_is_heard(self):
        frequency, level = tone_at(decoded(self.speak())[3200:])
        assert frequency == pytest.approx(440, abs=3)
        assert level == pytest.approx(8000, rel=0.05)

    def test_sound_leaves_with_its_frame(self):
        encoder, decoder = OpusEncoder(), OpusDecoder()
        silence = np.zeros(480, np.int16)
        burst = np.random.default_rng(1).integers(-20_000, 20_000, 480).astype(np.int16)
        levels = [np.abs(decoder.decode(encoder.encode(frame))).max() for frame in (silence, silence, burst)]
        assert levels[:2] == [0, 0]
        assert levels[2] > 5000

    @pytest.mark.parametrize("bitrate", [16_000, 48_000, 96_000])
    def test_keeps_near_its_bit_rate(self, bitrate):
        encoder = OpusEncoder(bitrate=bitrate)
        noise = np.random.default_rng(1).integers(-9000, 9000, (50, 480)).astype(np.int16)
        bits = 8 * sum(len(encoder.encode(frame)) for frame in noise)
        assert bits == pytest.approx(bitrate, rel=0.25)

    def test_silence_is_the_canned_packet(self):
        assert OpusEncoder().encode(np.zeros(480, np.int16)) == SILENCE_PACKET

    def test_a_frame_given_out_is_not_changed_by_the_next(self):
        rng = np.random.default_rng(2)
        frames = rng.integers(-9000, 9000, (10, 480)).astype(np.int16)
        together, twice = OpusEncoder(), OpusEncoder()
        packets = [together.encode(frame) for frame in frames]
        reused = np.empty(480, np.int16)
        for frame, packet in zip(frames, packets, strict=True):
            reused[:] = frame
            assert twice.encode(reused) == packet
            reused[:] = 0

    @pytest.mark.parametrize(
        "frame",
        [np.zeros(479, np.int16), np.zeros(960, np.int16), np.zeros(480, np.float32), np.zeros((1, 480), np.int16)],
    )
    def test_anything_but_a_frame_is_refused(self, frame):
        with pytest.raises(ValueError, match="480"):
            OpusEncoder().encode(frame)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="threads are counted in /proc")
def test_encoders_start_no_threads():
    threads = Path("/proc/self/task")
    before = len(list(threads.iterdir()))
    encoders = [OpusEncoder() for _ in range(3)]
    for encoder in encoders:
        encoder.encode(np.zeros(480, np.int16))
    assert len(list(threads.iterdir())) == before


def speech(seconds=1.5):
    """20 ms frames of something that SILK takes for a voice: a gliding pitch with overtones."""
    at = np.arange(round(24_000 * seconds)) / 24_000
    pitch = 2 * np.pi * np.cumsum(120 + 40 * np.sin(2 * np.pi * 1.5 * at)) / 24_000
    wave = sum(np.sin(n * pitch) / n for n in range(1, 20)) * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * at))
    pcm = (6000 * wave).astype(np.int16)
    return [pcm[start : start + 480] for start in range(0, len(pcm) - 479, 480)]


@functools.cache
def guarded():
    encoder = OpusEncoder()
    encoder.expect_loss(0.1)
    return tuple(encoder.encode(frame) for frame in speech())


class TestCopies:
    """In-band FEC: a packet that never came, out of the one after it."""

    def test_an_encoder_guards_while_packets_get_lost(self):
        encoder = OpusEncoder()
        told = []
        for share in (0.0, 0.02, 0.04, 0.01, 0.004, 0.02):
            encoder.expect_loss(share)
            told.append((encoder.guards, encoder.encode(speech(0.1)[0])[0] >> 3 >= 16))
        assert told == [(False, True), (False, True), (True, False), (True, False), (False, True), (False, True)]

    def test_its_packets_carry_copies(self):
        assert sum(map(carries_copy, guarded()[5:])) > 0.8 * len(guarded()[5:])
        plain = OpusEncoder()
        assert not any(carries_copy(plain.encode(frame)) for frame in speech())

    def test_a_lost_packet_is_nearer_to_what_was_said_than_concealment(self):
        packets, errors = guarded(), {"copy": 0.0, "concealed": 0.0}
        whole = OpusDecoder()
        said = [whole.decode(packet) for packet in packets]
        guarded_ones = [lost for lost in range(10, len(packets) - 1) if carries_copy(packets[lost + 1])]
        for kind in errors:
            for lost in guarded_ones[::4]:
                decoder = OpusDecoder()
                for packet in packets[:lost]:
                    decoder.decode(packet)
                pcm = decoder.recover(960, packets[lost + 1]) if kind == "copy" else decoder.conceal(960)
                assert pcm is not None
                assert len(pcm) == 320
                errors[kind] += float(np.mean((pcm.astype(float) - said[lost]) ** 2))
        assert errors["copy"] < errors["concealed"] / 2

    @pytest.mark.parametrize("following", [b"", b"\x78", SILENCE_PACKET, b"\x7b\x02aa"])
    def test_where_there_is_no_copy_there_is_none(self, following):
        assert OpusDecoder().recover(960, following) is None

    def test_a_copy_of_another_length_is_left_alone(self):
        packet = next(filter(carries_copy, guarded()))
        assert OpusDecoder().recover(1920, packet) is None

    @given(st.binary(max_size=80), st.sampled_from([120, 480, 960, 2880]))
    @settings(max_examples=200, deadline=None)
    def test_no_bytes_raise_or_spoil_the_decoder(self, following, samples):
        decoder = OpusDecoder()
        decoder.decode(guarded()[10])
        pcm = decoder.recover(samples, following)
        assert pcm is None or len(pcm) == samples // 3
        assert len(decoder.decode(guarded()[11])) == 320

    @pytest.mark.skipif(not hasattr(libopus.library(), "opus_packet_has_lbrr"), reason="libopus is older than 1.5")
    @given(st.binary(min_size=2, max_size=8))
    @settings(deadline=None)
    def test_libopus_sees_the_same_copies(self, payload):
        toc = payload[0] & 0xFC
        if toc < 0x80 and packet_samples(bytes([toc])) <= 960:
            payload = bytes([toc]) + payload[1:]
            assert carries_copy(payload) == bool(libopus.library().opus_packet_has_lbrr(payload, len(payload)))
