"""G.711: mu-law and A-law bytes to linear PCM at 8 kHz and back, by table (ITU-T G.711, as in its G.191 reference).

Decoded values fill the int16 range (14-bit mu-law and 13-bit A-law times 4 and 8). Encoding is exact
for all 65,536 inputs, and any byte decodes: neither direction can fail.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from media.audio import Pcm

_MULAW_BIAS: Final = 33
"""Added to the 14-bit magnitude, so that every segment begins at a power of two."""
_MULAW_CLIP: Final = 8191
"""14-bit magnitude with its bias; without this the loudest inputs would need a ninth segment."""
_ALAW_TOGGLE: Final = 0x55
"""A-law inverts every other bit on the line."""


def _mulaw_encoding() -> npt.NDArray[np.uint8]:
    linear = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32) >> 2
    magnitude = np.minimum(np.abs(linear) + _MULAW_BIAS, _MULAW_CLIP)
    exponent = np.floor(np.log2(magnitude)).astype(np.int32) - 5
    mantissa = magnitude >> (exponent + 1) & 0x0F
    sign = np.where(linear < 0, 0x80, 0)
    codes: npt.NDArray[np.uint8] = (~(sign | exponent << 4 | mantissa) & 0xFF).astype(np.uint8)
    return codes


def _mulaw_decoding() -> Pcm:
    code = ~np.arange(256) & 0xFF
    exponent = code >> 4 & 7
    magnitude = ((2 * (code & 0x0F) + _MULAW_BIAS) << exponent) - _MULAW_BIAS
    return (4 * np.where(code & 0x80, -magnitude, magnitude)).astype(np.int16)


def _alaw_encoding() -> npt.NDArray[np.uint8]:
    linear = np.arange(65536, dtype=np.uint16).view(np.int16).astype(np.int32) >> 3
    # One's complement for negative values: -1 lies in the first step below zero.
    magnitude = np.where(linear < 0, ~linear, linear)
    exponent = np.maximum(np.floor(np.log2(np.maximum(magnitude, 1))).astype(np.int32) - 4, 0)
    mantissa = magnitude >> np.maximum(exponent, 1) & 0x0F
    sign = np.where(linear < 0, 0, 0x80)
    codes: npt.NDArray[np.uint8] = ((sign | exponent << 4 | mantissa) ^ _ALAW_TOGGLE).astype(np.uint8)
    return codes


def _alaw_decoding() -> Pcm:
    code = np.arange(256) ^ _ALAW_TOGGLE
    exponent = code >> 4 & 7
    step = 2 * (code & 0x0F) + 1
    magnitude = np.where(exponent == 0, step, (step + 32) << np.maximum(exponent - 1, 0))
    return (8 * np.where(code & 0x80, magnitude, -magnitude)).astype(np.int16)


_MULAW_ENCODING: Final = _mulaw_encoding()
_MULAW_DECODING: Final = _mulaw_decoding()
_ALAW_ENCODING: Final = _alaw_encoding()
_ALAW_DECODING: Final = _alaw_decoding()


def ulaw_encode(pcm: Pcm) -> bytes:
    """One byte a sample."""
    return _MULAW_ENCODING[pcm.view(np.uint16)].tobytes()


def ulaw_decode(data: bytes) -> Pcm:
    """One sample a byte."""
    return _MULAW_DECODING[np.frombuffer(data, np.uint8)]


def alaw_encode(pcm: Pcm) -> bytes:
    """One byte a sample."""
    return _ALAW_ENCODING[pcm.view(np.uint16)].tobytes()


def alaw_decode(data: bytes) -> Pcm:
    """One sample a byte."""
    return _ALAW_DECODING[np.frombuffer(data, np.uint8)]
