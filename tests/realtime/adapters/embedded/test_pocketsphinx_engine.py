import wave
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from media import g711
from media.audio import RATE_IN, Pcm
from media.resample import BlockResampler
from realtime.adapters.embedded.pocketsphinx_engine import PEAK, Level
from tests.calls.conftest import HOW_ARE_YOU, WEATHER


def tone(amplitude: float, seconds: float) -> Pcm:
    time = np.arange(int(seconds * RATE_IN)) / RATE_IN
    return (amplitude * np.sin(2 * np.pi * 200 * time)).astype(np.int16)


def through(level: Level, pcm: Pcm) -> Pcm:
    out = [level.push(pcm[start : start + 320]) for start in range(0, len(pcm), 320)]
    return np.concatenate([*out, level.flush()])


def peak(pcm: Pcm) -> int:
    return int(np.abs(pcm.astype(int)).max())


@pytest.mark.parametrize("amplitude", [1000, 1500, 4000, 31_000])
def test_quiet_and_overdriven_speech_is_brought_to_one_level(amplitude: int) -> None:
    out = through(Level(), np.concatenate([np.zeros(4800, np.int16), tone(amplitude, 1.0)]))
    assert peak(out) == pytest.approx(PEAK, rel=0.02)


def test_a_comfortable_level_is_left_alone() -> None:
    speech = tone(12_000, 1.0)
    assert np.array_equal(through(Level(), speech), speech)


def test_noise_is_not_made_into_speech() -> None:
    assert peak(through(Level(), tone(50, 2.0))) <= 500


def test_what_grows_loud_later_does_not_clip() -> None:
    out = through(Level(), np.concatenate([tone(1000, 1.0), tone(20_000, 1.0)]))
    assert peak(out) <= 30_000


def test_a_known_speaker_is_heard_without_waiting() -> None:
    level = Level(2000)
    assert peak(level.push(tone(2000, 0.02))) == pytest.approx(PEAK, rel=0.02)
    unknown = Level()
    assert len(unknown.push(tone(2000, 0.02))) == 0
    assert len(unknown.flush()) == 320


@pytest.mark.parametrize("clip", [WEATHER, HOW_ARE_YOU])
def test_a_telephone_line_is_told_from_a_microphone(clip: Path) -> None:
    with wave.open(str(clip)) as file:
        speech = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    level = Level()
    through(level, speech)
    assert not level.is_narrow
    level = Level()
    line = g711.ulaw_decode(g711.ulaw_encode(BlockResampler(16_000, 8_000).push(speech)))
    through(level, BlockResampler(8_000, 16_000).push(line))
    assert level.is_narrow


@given(st.lists(st.integers(0, 3000), max_size=20), st.integers(0, 32767), st.none() | st.floats(1, 32768))
def test_no_sample_is_lost_or_added(pieces: list[int], amplitude: int, known: float | None) -> None:
    level = Level(known)
    out = [level.push(np.full(count, amplitude, np.int16)) for count in pieces]
    assert sum(map(len, out)) + len(level.flush()) == sum(pieces)
