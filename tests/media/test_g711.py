"""Both laws against the values of ITU-T G.711, and by properties over every code and every sample."""

import numpy as np
import pytest

from media import g711

EVERY_SAMPLE = np.arange(65536, dtype=np.uint16).view(np.int16)
EVERY_CODE = bytes(range(256))
LAWS = {"ulaw": (g711.ulaw_encode, g711.ulaw_decode), "alaw": (g711.alaw_encode, g711.alaw_decode)}


@pytest.fixture(params=LAWS)
def law(request):
    return LAWS[request.param]


@pytest.mark.parametrize(
    ("name", "sample", "code"),
    [
        ("ulaw", 0, 0xFF),
        ("ulaw", -1, 0x7E),
        ("ulaw", 32767, 0x80),
        ("ulaw", -32768, 0x00),
        ("ulaw", 1000, 0xCE),
        ("ulaw", -1000, 0x4E),
        ("alaw", 0, 0xD5),
        ("alaw", -1, 0x55),
        ("alaw", 32767, 0xAA),
        ("alaw", -32768, 0x2A),
        ("alaw", 1000, 0xFA),
        ("alaw", -1000, 0x7A),
    ],
)
def test_known_samples(name, sample, code):
    assert LAWS[name][0](np.array([sample], np.int16)) == bytes([code])


@pytest.mark.parametrize(
    ("name", "code", "sample"),
    [
        ("ulaw", 0xFF, 0),
        ("ulaw", 0x7F, 0),
        ("ulaw", 0x80, 32124),
        ("ulaw", 0x00, -32124),
        ("ulaw", 0xFE, 8),
        ("alaw", 0xD5, 8),
        ("alaw", 0x55, -8),
        ("alaw", 0xAA, 32256),
        ("alaw", 0x2A, -32256),
    ],
)
def test_known_codes(name, code, sample):
    assert LAWS[name][1](bytes([code])).tolist() == [sample]


def test_every_code_survives_but_the_second_zero_of_mulaw():
    again = g711.ulaw_encode(g711.ulaw_decode(EVERY_CODE))
    assert [code for code in range(256) if again[code] != code] == [0x7F]
    assert g711.alaw_encode(g711.alaw_decode(EVERY_CODE)) == EVERY_CODE


def test_every_sample_becomes_the_nearest_value_or_nearly(law):
    encode, decode = law
    decoded = decode(encode(EVERY_SAMPLE)).astype(np.int32)
    sample = EVERY_SAMPLE.astype(np.int32)
    # The step of a segment is a sixteenth of where it begins; the clip costs the loudest 2 %.
    allowed = np.maximum(np.abs(sample) // 32 + 8, 0)
    allowed = np.where(np.abs(sample) > 32124, 650, allowed + 8)
    assert (np.abs(decoded - sample) <= allowed).all()


def test_louder_never_becomes_quieter(law):
    encode, decode = law
    decoded = decode(encode(np.arange(-32768, 32768).astype(np.int16))).astype(np.int32)
    assert (np.diff(decoded) >= 0).all()


def test_one_byte_a_sample_and_nothing_from_nothing(law):
    encode, decode = law
    assert encode(np.zeros(0, np.int16)) == b""
    assert decode(b"").dtype == np.int16
    assert len(decode(b"")) == 0
    assert len(encode(np.zeros(160, np.int16))) == 160
    assert decode(bytes(160)).shape == (160,)


def test_a_strided_view_is_read_as_it_stands(law):
    encode, _ = law
    assert encode(EVERY_SAMPLE[::3]) == encode(EVERY_SAMPLE[::3].copy())
