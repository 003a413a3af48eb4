"""One stream of mono PCM from one sample rate to another, through PyAV's resampler.

One `Resampler` per stream and direction: it carries its filter from push to push, so how the audio
is cut into pushes does not change the sound. It keeps back about 1 ms, which `flush` gives out.
`BlockResampler` does the conversions that every 20 ms of a call over a socket go through, at a third of the cost.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import av
import numpy as np
import numpy.typing as npt

from media.audio import Pcm

RATES: Final = frozenset({8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000})
"""Hz: what voices, recognisers and telephone lines use. Anything else is a mistake in an engine's answer."""

_NOTHING: Final = np.zeros(0, np.int16)


class Resampler:
    """`source_hz`, `target_hz`: from `RATES`, else `ValueError`."""

    def __init__(self, source_hz: int, target_hz: int) -> None:
        for rate in (source_hz, target_hz):
            if rate not in RATES:
                raise ValueError(f"cannot resample {rate} Hz, only {', '.join(map(str, sorted(RATES)))}")
        self._source = source_hz
        self._target = target_hz
        self._resampler: av.AudioResampler | None = None

    def push(self, pcm: Pcm) -> Pcm:
        """Any number of samples, 0 too; what comes out belongs to the caller."""
        if pcm.dtype != np.int16 or pcm.ndim != 1:
            raise ValueError("PCM is one-dimensional int16")
        if self._source == self._target:
            return pcm
        if not len(pcm):
            return _NOTHING
        if self._resampler is None:
            self._resampler = av.AudioResampler("s16", "mono", self._target)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = self._source
        return _joined(self._resampler.resample(frame))

    def flush(self) -> Pcm:
        """The rest; the next push begins a new stream."""
        resampler, self._resampler = self._resampler, None
        return _NOTHING if resampler is None else _joined(resampler.resample(None))


_CUTOFFS_HZ: Final = {8_000: 3_800.0, 16_000: 7_900.0, 24_000: 11_700.0}
"""Where the filter is 6 dB down, by the lower of the two rates."""
_KAISER: Final = 6.2
_MOST: Final = np.array(32_767, np.float32)
_LEAST: Final = np.array(-32_768, np.float32)


@cache
def _filter(source_hz: int, target_hz: int) -> npt.NDArray[np.float32]:
    """The weights with which a block of 1 ms and the 2 or 3 ms around it make 1 ms at the other rate."""
    block_in, block_out, taps = source_hz // 1000, target_hz // 1000, _taps(source_hz, target_hz)
    window = np.arange(block_in + taps)[:, None]
    centres = (taps - 1) / 2 + source_hz / target_hz * np.arange(block_out)[None, :]
    offsets = window - centres
    inside = np.clip(1.0 - (2.0 * offsets / taps) ** 2, 0.0, None)
    cutoff = _CUTOFFS_HZ[min(source_hz, target_hz)] / source_hz
    weights = np.sinc(2.0 * cutoff * offsets) * np.i0(_KAISER * np.sqrt(inside)) * (inside > 0)
    normal: npt.NDArray[np.float32] = (weights / weights.sum(axis=0)).astype(np.float32)
    return normal


def _taps(source_hz: int, target_hz: int) -> int:
    """Input samples under the filter: 2 ms, or 4 where the narrow band of a telephone line leaves less room."""
    return source_hz // 1000 * (4 if min(source_hz, target_hz) == 8_000 else 2)


class BlockResampler:
    """8, 16 and 24 kHz to each other: a windowed sinc in blocks of 1 ms, all of a push in one product of matrices.

    What comes out lags by 1 ms (2 ms from or to 8 kHz), and up to 1 ms more waits for its block. The state is a few
    samples, so that hundreds of calls do not push each other's filters out of the processor's cache. Between 16 and
    24 kHz it is flat to 7 kHz and 65 dB down from 9 kHz on; from and to 8 kHz flat to 3.3 kHz, 60 dB down from 4.3 kHz.
    """

    def __init__(self, source_hz: int, target_hz: int) -> None:
        if not {source_hz, target_hz} <= _CUTOFFS_HZ.keys():
            raise ValueError(f"cannot resample {source_hz} Hz to {target_hz} Hz in blocks")
        self._weights = _filter(source_hz, target_hz)
        self._block = source_hz // 1000
        self._taps = _taps(source_hz, target_hz)
        self._same = source_hz == target_hz
        self._buffer = np.zeros(self._taps, np.float32)
        """The latest samples: those under the filter, and those short of a block; behind them room for the next."""
        self._known = self._taps
        self._lay_out(self._taps, 0)

    def push(self, pcm: Pcm) -> Pcm:
        """Any number of samples, 0 too; what comes out belongs to the caller."""
        if self._same:
            return pcm
        total = self._known + len(pcm)
        blocks = (total - self._taps) // self._block
        if total > len(self._buffer) or blocks != len(self._made):
            self._lay_out(total, blocks)
        buffer, made = self._buffer, self._made
        buffer[self._known : total] = pcm
        np.matmul(self._windows, self._weights, out=made)
        np.rint(made, out=made)
        np.minimum(made, _MOST, out=made)
        np.maximum(made, _LEAST, out=made)
        done = blocks * self._block
        self._known = total - done
        buffer[: self._known] = buffer[done:total]
        return made.astype(np.int16).reshape(-1)

    def _lay_out(self, total: int, blocks: int) -> None:
        """Room for so many samples, a view of it as overlapping blocks, and room for what is made of them. All of it is
        kept while pushes are equally long."""
        buffer = np.empty(total, np.float32)
        buffer[: self._known] = self._buffer[: self._known]
        shape, step = (blocks, self._block + self._taps), buffer.itemsize
        self._buffer = buffer
        self._windows = np.ndarray(shape, np.float32, buffer, 0, (self._block * step, step))
        self._made = np.empty((blocks, self._weights.shape[1]), np.float32)


def _joined(frames: list[av.AudioFrame]) -> Pcm:
    parts: list[Pcm] = [np.frombuffer(memoryview(frame.planes[0]), np.int16, frame.samples) for frame in frames]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else _NOTHING
