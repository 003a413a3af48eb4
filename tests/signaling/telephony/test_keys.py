"""Keys as tones: the right pair of each, long enough, without clicks."""

from __future__ import annotations

import numpy as np
import pytest

from signaling.telephony.keys import tones

ROWS, COLUMNS = (697, 770, 852, 941), (1209, 1336, 1477, 1633)


@pytest.mark.parametrize(("key", "place"), [(key, divmod(at, 4)) for at, key in enumerate("123A456B789C*0#D")])
def test_each_key_is_its_two_tones(key: str, place: tuple[int, int]) -> None:
    pcm = tones(key)
    assert len(pcm) == 4800, "100 ms of sound, 100 ms of none"
    spectrum = np.abs(np.fft.rfft(pcm[:2400].astype(np.float64) * np.hanning(2400), 24_000))
    strongest = sorted((*ROWS, *COLUMNS), key=lambda hz: -spectrum[hz])[:2]
    assert sorted(strongest) == [ROWS[place[0]], COLUMNS[place[1]]]
    assert not pcm[2400:].any()
    assert np.abs(pcm).max() < 10_000
    assert np.abs(np.diff(pcm[:24].astype(int))).max() < 1500, "it begins without a click"


def test_a_comma_is_a_pause() -> None:
    assert len(tones("1,,2")) == 4800 + 2 * 12_000 + 4800


@pytest.mark.parametrize("keys", ["", "E", "a", " ", "1-2", "²", "1" * 65])
def test_anything_else_is_an_error(keys: str) -> None:
    with pytest.raises(ValueError, match="keys are"):
        tones(keys)
