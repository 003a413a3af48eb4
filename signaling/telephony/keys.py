"""The tones of a telephone's keys (ITU-T Q.23), as 24 kHz audio: what reaches a far end over any codec."""

from __future__ import annotations

import numpy as np

from media.audio import RATE_OUT, Pcm
from signaling.telephony.carrier import KEYS

MAX_KEYS = 64
_ROWS = (697, 770, 852, 941)
_COLUMNS = (1209, 1336, 1477, 1633)
_PAD = "123A456B789C*0#D"
_ON_MS, _OFF_MS, _PAUSE_MS = 100, 100, 500
"""ITU-T Q.24 asks for 40 ms and more of each."""
_LEVEL = 4500
"""Of each of the two tones: together -11 dBFS at their peak."""


def tones(keys: str) -> Pcm:
    """`keys`: `0-9*#ABCD`, and `,` for half a second of nothing; at most 64. Raises ValueError."""
    if not keys or len(keys) > MAX_KEYS or any(key != "," and key not in KEYS for key in keys):
        raise ValueError("keys are 0-9, *, #, A-D and a comma for a pause, at most 64 of them")
    return np.concatenate([_silence(_PAUSE_MS) if key == "," else _key(key) for key in keys])


def _key(key: str) -> Pcm:
    row, column = divmod(_PAD.index(key), 4)
    at = 2 * np.pi * np.arange(RATE_OUT * _ON_MS // 1000) / RATE_OUT
    tone = _LEVEL * (np.sin(_ROWS[row] * at) + np.sin(_COLUMNS[column] * at))
    edge = np.minimum(1.0, np.arange(len(tone)) / (RATE_OUT * 0.003))
    return np.concatenate([(tone * edge * edge[::-1]).astype(np.int16), _silence(_OFF_MS)])


def _silence(ms: int) -> Pcm:
    return np.zeros(RATE_OUT * ms // 1000, np.int16)
