"""Tones through every pair of rates: what goes in comes out, however it is cut."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from media.resample import BlockResampler, Resampler

RATES = (8_000, 16_000, 22_050, 24_000, 44_100, 48_000)
PAIRS = list(itertools.permutations(RATES, 2))


def tone(rate, hertz=440.0, seconds=1.0, level=8000):
    return np.rint(level * np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate)).astype(np.int16)


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_duration_frequency_and_level_stay(source, target):
    resampler = Resampler(source, target)
    out = np.concatenate((resampler.push(tone(source)), resampler.flush()))
    assert out.dtype == np.int16
    assert abs(len(out) - target) <= 1
    # Compared sample by sample with the same tone made at the target rate: this holds delay, pitch and level.
    expected = 8000 * np.sin(2 * np.pi * 440 * np.arange(len(out)) / target)
    middle = slice(target // 20, -target // 20)
    assert np.abs(out[middle] - expected[middle]).max() < 40


@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_no_more_than_two_milliseconds_are_kept_back(source, target):
    given_out = len(Resampler(source, target).push(tone(source, seconds=0.02)))
    assert given_out / target >= 0.018 - 1 / target


@given(st.sampled_from(PAIRS), st.lists(st.integers(0, 1500), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_how_the_audio_is_cut_does_not_matter(pair, sizes):
    noise = np.random.default_rng(1).integers(-9000, 9000, sum(sizes)).astype(np.int16)
    whole, cut = Resampler(*pair), Resampler(*pair)
    expected = np.concatenate((whole.push(noise), whole.flush()))
    parts = [cut.push(part) for part in np.split(noise, np.cumsum(sizes)[:-1])]
    np.testing.assert_array_equal(np.concatenate((*parts, cut.flush())), expected)


def test_what_the_target_cannot_carry_is_gone():
    resampler = Resampler(48_000, 16_000)
    out = np.concatenate((resampler.push(tone(48_000, hertz=10_000)), resampler.flush()))
    assert np.abs(out[800:-800]).max() < 30


def test_full_scale_does_not_wrap():
    resampler = Resampler(16_000, 24_000)
    square = np.where(np.arange(16_000) % 160 < 80, 32767, -32768).astype(np.int16)
    out = np.concatenate((resampler.push(square), resampler.flush()))
    expected = np.where(np.arange(24_000) % 240 < 120, 1, -1)
    inner = (np.arange(24_000) % 120 > 20) & (np.arange(24_000) % 120 < 100)
    assert (np.sign(out)[inner] == expected[inner]).all()


def test_the_same_rate_passes_through():
    resampler = Resampler(24_000, 24_000)
    audio = tone(24_000)
    np.testing.assert_array_equal(resampler.push(audio), audio)
    assert len(resampler.flush()) == 0


def test_nothing_gives_nothing_and_a_flush_begins_a_new_stream():
    resampler = Resampler(22_050, 24_000)
    assert len(resampler.push(np.zeros(0, np.int16))) == 0
    assert len(resampler.flush()) == 0
    first = np.concatenate((resampler.push(tone(22_050)), resampler.flush()))
    second = np.concatenate((resampler.push(tone(22_050)), resampler.flush()))
    np.testing.assert_array_equal(first, second)


def test_a_strided_view_is_read_as_it_stands():
    audio = tone(48_000)
    np.testing.assert_array_equal(
        Resampler(24_000, 16_000).push(audio[::2]), Resampler(24_000, 16_000).push(audio[::2].copy())
    )


@pytest.mark.parametrize("rates", [(0, 16_000), (16_000, 0), (-8_000, 8_000), (16_000, 1_000_000)])
def test_other_rates_are_refused(rates):
    with pytest.raises(ValueError, match="Hz"):
        Resampler(*rates)


@pytest.mark.parametrize("pcm", [np.zeros(10, np.float32), np.zeros((1, 10), np.int16)])
def test_other_shapes_are_refused(pcm):
    with pytest.raises(ValueError, match="int16"):
        Resampler(16_000, 8_000).push(pcm)


def test_downsampling_does_not_depend_on_the_pushes_and_keeps_what_is_below_seven_kilohertz():
    noise = np.random.default_rng(1)
    pcm = noise.integers(-20_000, 20_000, 24_000).astype(np.int16)
    whole, pieces = BlockResampler(24_000, 16_000), BlockResampler(24_000, 16_000)
    parts, at = [], 0
    while at < len(pcm):
        size = int(noise.integers(0, 700))
        parts.append(pieces.push(pcm[at : at + size]))
        at += size
    assert np.array_equal(whole.push(pcm), np.concatenate(parts))
    for hertz, least, most in ((1_000, 0.99, 1.01), (7_000, 0.98, 1.01), (10_000, 0.0, 0.001)):
        tone = (10_000 * np.sin(2 * np.pi * hertz * np.arange(24_000) / 24_000)).astype(np.int16)
        made = BlockResampler(24_000, 16_000).push(tone)[1_000:].astype(float)
        assert least <= np.sqrt(np.mean(made**2)) / 7_071 <= most
