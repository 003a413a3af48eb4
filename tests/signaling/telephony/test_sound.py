"""Carriers' audio to 16 kHz and 24 kHz to carriers' audio: levels, lengths, pieces, whole frames."""

from __future__ import annotations

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media import g711
from media.audio import Pcm
from media.codec import PCMU
from media.g711 import alaw_decode, alaw_encode, ulaw_decode, ulaw_encode
from media.opus import OpusEncoder
from media.prepared import Prepared, SharingEncoder
from signaling.telephony.carrier import Codec
from signaling.telephony.sound import FromCarrier, ToCarrier
from tests.media.webrtc import loudest_hz

CODECS = [Codec.named(name) for name in ("pcmu", "pcma", "l16/8000", "l16/16000", "l16/24000")]


def tone(rate: int, seconds: float = 1.0, hz: float = 440.0) -> Pcm:
    return (8000 * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)).astype(np.int16)


def encoded(codec: Codec, pcm: Pcm) -> bytes:
    if codec.encoding == "l16":
        return pcm.astype("<i2").tobytes()
    return ulaw_encode(pcm) if codec.encoding == "pcmu" else alaw_encode(pcm)


def decoded(codec: Codec, data: bytes) -> Pcm:
    if codec.encoding == "l16":
        return np.frombuffer(data, "<i2")
    return ulaw_decode(data) if codec.encoding == "pcmu" else alaw_decode(data)


def rms(pcm: Pcm) -> float:
    return float(np.sqrt(np.mean(pcm.astype(np.float64) ** 2)))


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_what_a_carrier_sends_is_heard_as_it_was(codec: Codec) -> None:
    ear, data = FromCarrier(codec), encoded(codec, tone(codec.rate))
    step = codec.frame_bytes(20)
    pcm = np.concatenate([ear.push(data[at : at + step]) for at in range(0, len(data), step)])
    assert len(pcm) == pytest.approx(16_000, abs=160)
    assert abs(loudest_hz(pcm, 16_000) - 440) < 2
    assert rms(pcm[1600:-1600]) == pytest.approx(5657, rel=0.03)


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_what_we_say_reaches_the_carrier_as_it_was(codec: Codec) -> None:
    mouth, said = ToCarrier(codec), tone(24_000)
    pcm = decoded(codec, b"".join(mouth.push([said[at : at + 4800]]) for at in range(0, len(said), 4800)))
    assert len(pcm) == pytest.approx(codec.rate, abs=codec.rate // 50)
    assert abs(loudest_hz(pcm, codec.rate) - 440) < 2
    middle = pcm[codec.rate // 10 : -codec.rate // 10]
    assert rms(middle) == pytest.approx(5657, rel=0.03)


def test_pieces_of_any_size_make_the_same_sound() -> None:
    """Filters carry on from piece to piece: no clicks between messages."""
    said = tone(24_000, 0.5)
    for codec in CODECS:
        whole, pieces = ToCarrier(codec), ToCarrier(codec)
        together = whole.push([said])
        apart = b"".join(pieces.push([said[at : at + 480]]) for at in range(0, len(said), 480))
        assert apart == together


@pytest.mark.parametrize("frame", [160, 320, 640])
def test_only_whole_frames_come_out_and_the_last_is_filled_with_silence(frame: int) -> None:
    mouth = ToCarrier(Codec("pcmu"), frame)
    out = [mouth.push([tone(24_000, 0.03)]) for _ in range(5)]
    assert all(len(data) % frame == 0 for data in out)
    rest = mouth.flush()
    assert len(rest) in (0, frame)
    assert rest == b"" or rest.endswith(b"\xff")
    assert mouth.flush() == b""


def test_after_a_reset_nothing_of_before_is_left() -> None:
    mouth = ToCarrier(Codec("l16", 16_000), 640)
    mouth.push([tone(24_000, 0.033)])
    mouth.reset()
    assert mouth.flush() == b""
    assert not np.frombuffer(mouth.push([np.zeros(4800, np.int16)]), "<i2").any()


def prepared_speech(seconds: float, hz: float = 440.0) -> list[Pcm]:
    said = tone(24_000, seconds, hz)
    return [said[at : at + 480] for at in range(0, len(said), 480)]


def said_to(mouth: ToCarrier, frames: list[Pcm], prepared: Prepared | None = None) -> bytes:
    """In pieces of 200 ms, as carriers are sent them."""
    pieces = []
    for at in range(0, len(frames), 10):
        piece = frames[at : at + 10]
        pieces.append(mouth.push(piece, [prepared and (prepared, at + n) for n in range(len(piece))]))
    return b"".join(pieces)


@pytest.mark.parametrize("name", ["pcmu", "pcma"])
def test_what_is_prepared_is_encoded_for_the_first_call_and_each_call_gets_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, frames, prepared = Codec.named(name), prepared_speech(0.5), Prepared()
    alone = said_to(ToCarrier(codec), [np.zeros(480, np.int16), *frames])[160:]
    assert said_to(ToCarrier(codec), frames, prepared) == alone
    monkeypatch.setattr(g711.Encoder, "encode", None)
    assert said_to(ToCarrier(codec), frames, prepared) == alone


def test_a_webrtc_call_and_a_carriers_call_share_g711() -> None:
    frames, prepared = prepared_speech(0.3), Prepared()
    line = SharingEncoder(PCMU.encoder())
    packets = [line.encode(frame, (prepared, number)) for number, frame in enumerate(frames)]
    assert said_to(ToCarrier(Codec("pcmu")), frames, prepared) == b"".join(packets)
    assert prepared.packets(PCMU.encoder().setting) == packets


@pytest.mark.parametrize("codec", CODECS, ids=lambda codec: codec.name)
def test_what_follows_something_prepared_sounds_as_if_all_was_encoded_for_this_call(codec: Codec) -> None:
    """After some of it, in the same message, and after all of it."""
    greeting, answer, prepared = prepared_speech(0.5), prepared_speech(0.3, 300.0), Prepared()
    said_to(ToCarrier(codec), greeting, prepared)
    for heard in (4, len(greeting)):
        shared, own = ToCarrier(codec), ToCarrier(codec)
        own.push([np.zeros(480, np.int16)])
        shared.push([np.zeros(480, np.int16)])
        frames = [*greeting[:heard], *answer]
        sources = [(prepared, n) if n < heard else None for n in range(len(frames))]
        assert shared.push(frames, sources) == own.push(frames)


def test_samples_that_are_not_g711_are_not_kept_with_the_sound() -> None:
    prepared = Prepared()
    for name in ("l16/8000", "l16/16000", "l16/24000"):
        said_to(ToCarrier(Codec.named(name)), prepared_speech(0.3), prepared)
    assert prepared._packets == {}


def test_silence_is_as_long_as_was_asked() -> None:
    for codec in CODECS:
        ear = FromCarrier(codec)
        assert len(np.concatenate([ear.silence(100) for _ in range(10)])) == pytest.approx(16_000, abs=160)


def g722(pcm: Pcm) -> list[bytes]:
    """20 ms packets by FFmpeg's encoder."""
    encoder = av.AudioCodecContext.create("g722", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 16_000, "mono", "s16"  # type: ignore[assignment]
    packets = []
    for at in range(0, len(pcm), 320):
        frame = av.AudioFrame.from_ndarray(pcm[None, at : at + 320], format="s16", layout="mono")
        frame.sample_rate = 16_000
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    return packets


def opus(pcm: Pcm) -> list[bytes]:
    encoder = OpusEncoder()
    return [encoder.encode(pcm[at : at + 480]) for at in range(0, len(pcm), 480)]


@pytest.mark.parametrize("name", ["g722", "opus"])
def test_wideband_that_only_comes_in_is_heard(name: str) -> None:
    packets = g722(tone(16_000)) if name == "g722" else opus(tone(24_000))
    codec = Codec("g722" if name == "g722" else "opus", 16_000)
    ear = FromCarrier(codec)
    pcm = np.concatenate([ear.push(packet) for packet in packets])
    assert len(pcm) == 16_000
    assert sum(codec.ms(packet) for packet in packets) == 1000
    assert abs(loudest_hz(pcm, 16_000) - 440) < 2
    assert rms(pcm[1600:-1600]) == pytest.approx(5657, rel=0.1)


@pytest.mark.parametrize("name", ["pcmu", "pcma", "l16", "g722", "opus"])
@given(st.lists(st.binary(max_size=500), max_size=8))
@settings(max_examples=40, deadline=None)
def test_no_payload_is_too_odd(name: str, payloads: list[bytes]) -> None:
    ear = FromCarrier(Codec(name, 8000 if name.startswith("pcm") else 16_000))  # type: ignore[arg-type]
    for payload in payloads:
        pcm = ear.push(payload)
        assert pcm.dtype == np.int16
        assert len(pcm) <= 8 * 500 * 16


def test_half_a_sample_waits_for_the_other_half() -> None:
    ear = FromCarrier(Codec("l16", 16_000))
    data = tone(16_000, 0.1).tobytes()
    pcm = np.concatenate([ear.push(data[at : at + 1]) for at in range(len(data))])
    assert np.array_equal(pcm, FromCarrier(Codec("l16", 16_000)).push(data))
