"""G.711: mu-law and A-law bytes to linear PCM at 8 kHz and back, by table (ITU-T G.711, as in its G.191 reference).

Decoded values fill the int16 range (14-bit mu-law and 13-bit A-law times 4 and 8). Encoding is exact
for all 65,536 inputs, and any byte decodes: neither direction can fail.
`Decoder` and `Encoder` are one direction of one call each, at the rates that are used inside.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from media.audio import RATE_IN, RATE_OUT, Pcm
from media.resample import BlockResampler

RATE: Final = 8_000
_MAX_PAYLOAD: Final = RATE * 120 // 1000
"""Bytes: 120 ms, more than any sender packs (RFC 3551 advises 20)."""
_TO_48K: Final = 48_000 // RATE
_HISTORY: Final = 4
"""Payloads remembered, to make up one that is lost."""
_LAGS: Final = (RATE // 200, RATE // 50)
"""Samples in a period of a voice: 200 to 50 Hz; higher ones are found as a multiple."""
_ALIKE: Final = RATE // 100
"""Samples by which periods are compared."""
_FADE: Final = (RATE // 100, RATE * 60 // 1000)
"""Samples after which what is made up gets softer, and is silent."""
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


@dataclass(frozen=True, slots=True)
class Law:
    """One of the two. `silence`: its zero."""

    encode: Callable[[Pcm], bytes]
    decode: Callable[[bytes], Pcm]
    silence: bytes


ULAW: Final = Law(ulaw_encode, ulaw_decode, b"\xff")
ALAW: Final = Law(alaw_encode, alaw_decode, b"\xd5")


def duration(payload: bytes) -> int:
    """48 kHz samples in a payload. Raises `ValueError` for none and for more than 120 ms."""
    if not 0 < len(payload) <= _MAX_PAYLOAD:
        raise ValueError("not between one sample and 120 ms")
    return len(payload) * _TO_48K


class Decoder:
    """Payloads to 16 kHz mono. What never came is made up by going on with the last period of the voice, ever softer
    (the idea of ITU-T G.711 Appendix I)."""

    def __init__(self, law: Law) -> None:
        self._law = law
        self._resampler = BlockResampler(RATE, RATE_IN)
        self._latest: deque[Pcm] = deque(maxlen=_HISTORY)
        self._period: Pcm = np.zeros(0, np.int16)
        self._made = 0
        """Samples made up since the last payload."""

    def decode(self, payload: bytes) -> Pcm:
        """Twice as many samples as bytes; those short of a millisecond wait. Raises `ValueError` as `duration`."""
        duration(payload)
        pcm = self._law.decode(payload)
        self._latest.append(pcm)
        self._made = 0
        return self._resampler.push(pcm)

    def conceal(self, samples_48k: int) -> Pcm:
        """`samples_48k` // 3 samples, less what is short of a millisecond."""
        wanted = min(max(0, samples_48k) // _TO_48K, RATE)
        if self._made == 0:
            self._period = _last_period(self._latest)
        at = np.arange(self._made, self._made + wanted)
        self._made += wanted
        begin, end = _FADE
        gain = np.clip((end - at) / (end - begin), 0.0, 1.0)
        return self._resampler.push((self._period[at % len(self._period)] * gain).astype(np.int16))

    def recover(self, samples_48k: int, following: bytes) -> Pcm | None:
        """None: there are no copies in G.711."""
        return None


def _last_period(latest: deque[Pcm]) -> Pcm:
    """The end of what was heard, as long as after which it is most like itself; silence when that is too little."""
    heard = np.concatenate([np.zeros(0, np.int16), *latest]).astype(np.float32)
    shortest, longest = _LAGS
    if len(heard) < longest + _ALIKE:
        return np.zeros(1, np.int16)
    end = heard[-_ALIKE:]
    # One row for each lag: the stretch that ends so much earlier.
    rows = np.lib.stride_tricks.sliding_window_view(heard, _ALIKE)[::-1][shortest : longest + 1]
    alike = rows @ end / np.sqrt(np.einsum("ij,ij->i", rows, rows) + 1.0)
    lag = shortest + int(np.argmax(alike))
    return heard[-lag:].astype(np.int16)


class Encoder:
    """20 ms of 24 kHz mono to one payload."""

    def __init__(self, law: Law) -> None:
        self._law = law
        self._resampler = BlockResampler(RATE_OUT, RATE)

    @property
    def setting(self) -> str:
        """As `media.codec.Encoder`: its zero names the law."""
        return "g711 " + self._law.silence.hex()

    def encode(self, frame: Pcm) -> bytes:
        """A byte for every third sample."""
        return self._law.encode(self._resampler.push(frame))

    def encode_after(self, previous: Pcm, frame: Pcm) -> bytes:
        """The same, where another encoder made the payload of `previous`."""
        self._resampler.push(previous)
        return self.encode(frame)

    def expect_loss(self, share: float) -> None:
        """G.711 knows no guard against it."""
