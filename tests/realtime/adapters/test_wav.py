"""WAV files out, and speech of several formats in, torn anywhere."""

import contextlib
import io
import struct
import wave

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.audio import Pcm
from realtime.adapters.wav import MAX_HEADER, AudioError, SpeechReader, wav

PCM = np.arange(-600, 600, dtype=np.int16) * 20


def read(data: bytes, sizes: list[int] | None = None, *, header: bool = False) -> Pcm:
    reader = SpeechReader(header=header)
    parts: list[Pcm] = []
    sizes = list(sizes or [])
    while data:
        size = sizes.pop() if sizes else len(data)
        parts.append(reader.push(data[:size]))
        data = data[size:]
    return np.concatenate([*parts, reader.finish()])


def riff(form: bytes, data: bytes, *, size: int | None = None, before: bytes = b"", after: bytes = b"") -> bytes:
    length = len(data) if size is None else size
    chunk = b"fmt " + struct.pack("<I", len(form)) + form
    return b"RIFF\0\0\0\0WAVE" + before + chunk + b"data" + struct.pack("<I", length) + data + after


def form(code: int = 1, channels: int = 1, rate: int = 24_000, bits: int = 16) -> bytes:
    return struct.pack("<HHIIHH", code, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits)


def test_a_file_is_what_the_standard_library_reads() -> None:
    with wave.open(io.BytesIO(wav(PCM, 16_000))) as file:
        assert file.getparams()[:4] == (1, 2, 16_000, len(PCM))
        assert file.readframes(len(PCM)) == PCM.astype("<i2").tobytes()


@settings(deadline=None)
@given(st.lists(st.integers(1, 700), max_size=30))
def test_raw_and_wav_are_the_same_however_they_are_torn(sizes: list[int]) -> None:
    raw = PCM.astype("<i2").tobytes()
    assert np.array_equal(read(raw, sizes), PCM)
    assert np.array_equal(read(wav(PCM, 24_000), sizes), PCM)
    assert np.array_equal(read(wav(PCM, 24_000), sizes, header=True), PCM)


def test_a_torn_last_sample_is_dropped() -> None:
    assert np.array_equal(read(PCM.astype("<i2").tobytes() + b"\x01"), PCM)


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_streamed_header_does_not_know_the_length(size: int) -> None:
    assert np.array_equal(read(riff(form(), PCM.tobytes(), size=size)), PCM)


def test_other_chunks_are_skipped() -> None:
    extra = b"LIST" + struct.pack("<I", 5) + b"INFOx\0"
    assert np.array_equal(read(riff(form(), PCM.tobytes(), before=extra, after=extra), [1] * 100), PCM)


def test_channels_are_mixed_and_floats_converted() -> None:
    stereo = np.stack([PCM, np.zeros_like(PCM)], axis=1)
    assert np.array_equal(read(riff(form(channels=2), stereo.tobytes())), (PCM / 2).astype(np.int16))
    floats = (PCM / 32768).astype("<f4")
    assert np.array_equal(read(riff(form(3, bits=32), floats.tobytes())), PCM)
    loud = np.array([2.0, -2.0, np.nan], "<f4")
    assert list(read(riff(form(3, bits=32), loud.tobytes()))) == [32767, -32768, 0]
    extensible = form(0xFFFE) + struct.pack("<HHI", 22, 16, 4) + struct.pack("<H", 1) + bytes(14)
    assert np.array_equal(read(riff(extensible, PCM.tobytes())), PCM)


@pytest.mark.parametrize(
    ("data", "header"),
    [
        pytest.param(b"ID3\x04" + bytes(100), False, id="mp3"),
        pytest.param(b"OggS" + bytes(100), False, id="ogg"),
        pytest.param(b"fLaC" + bytes(100), False, id="flac"),
        pytest.param(b'{"error": 1}', False, id="json"),
        pytest.param(bytes(100), True, id="raw where a file was promised"),
        pytest.param(wav(PCM, 24_000)[:20], True, id="half a header"),
        pytest.param(b"RIFF\0\0\0\0AVI " + bytes(100), False, id="avi"),
        pytest.param(b"RIFF\0\0\0\0WAVEdata\0\0\0\0", False, id="no format"),
        pytest.param(riff(form(6), bytes(8)), False, id="a-law"),
        pytest.param(riff(form(bits=24), bytes(8)), False, id="24 bits"),
        pytest.param(riff(form(channels=0), bytes(8)), False, id="no channel"),
        pytest.param(riff(form(rate=1), bytes(8)), False, id="1 Hz"),
        pytest.param(riff(b"\1\0", bytes(8)), False, id="short format"),
        pytest.param(b"RIFF\0\0\0\0WAVE" + b"LIST\4\0\0\0INFO" * MAX_HEADER, False, id="endless header"),
        pytest.param(b"RIFF\0\0\0\0WAVELIST\xff\xff\xff\x7f", False, id="endless chunk"),
    ],
)
def test_what_is_not_speech(data: bytes, header: bool) -> None:
    with pytest.raises(AudioError):
        read(data, header=header)


@settings(deadline=None)
@given(st.binary(max_size=200), st.booleans(), st.booleans())
def test_any_bytes_are_audio_or_an_audio_error(data: bytes, header: bool, riff_in_front: bool) -> None:
    with contextlib.suppress(AudioError):
        read((b"RIFF\0\0\0\0WAVE" if riff_in_front else b"") + data, [7] * 30, header=header)
