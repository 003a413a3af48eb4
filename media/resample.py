"""One stream of mono PCM from one sample rate to another, through PyAV's resampler.

One `Resampler` per stream and direction: it carries its filter from push to push, so how the audio
is cut into pushes does not change the sound. It keeps back about 1 ms, which `flush` gives out.
`Downsampler` does the one conversion that every appended 20 ms of a call over a WebSocket goes through,
at a third of the cost.
"""

from __future__ import annotations

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


_BLOCK_IN: Final = 24
_BLOCK_OUT: Final = 16
_TAPS: Final = 48
"""Input samples under the filter, 2 ms: flat to 7 kHz, 65 dB down from 9 kHz on."""
_CUTOFF_HZ: Final = 7_900.0
_KAISER: Final = 6.2
_MOST: Final = np.array(32_767, np.float32)
_LEAST: Final = np.array(-32_768, np.float32)


def _filter() -> npt.NDArray[np.float32]:
    """The weights with which `_BLOCK_IN + _TAPS` samples at 24 kHz make `_BLOCK_OUT` samples at 16 kHz."""
    window = np.arange(_BLOCK_IN + _TAPS)[:, None]
    centres = (_TAPS - 1) / 2 + 1.5 * np.arange(_BLOCK_OUT)[None, :]
    offsets = window - centres
    inside = np.clip(1.0 - (2.0 * offsets / _TAPS) ** 2, 0.0, None)
    weights = np.sinc(2.0 * _CUTOFF_HZ / 24_000 * offsets) * np.i0(_KAISER * np.sqrt(inside)) * (inside > 0)
    normal: npt.NDArray[np.float32] = (weights / weights.sum(axis=0)).astype(np.float32)
    return normal


class Downsampler:
    """24 kHz to 16 kHz: a windowed sinc in blocks of 1 ms, all of a push in one product of matrices.

    What comes out lags by 1 ms, and up to 1 ms more waits for its block. The state is a few samples, so that
    hundreds of calls do not push each other's filters out of the processor's cache.
    """

    _WEIGHTS: Final = _filter()

    def __init__(self) -> None:
        self._rest = np.zeros(_TAPS, np.float32)
        """The latest samples: those under the filter, and those short of a block."""

    def push(self, pcm: Pcm) -> Pcm:
        """Any number of samples, 0 too; what comes out belongs to the caller."""
        known = len(self._rest)
        samples = np.empty(known + len(pcm), np.float32)
        samples[:known] = self._rest
        samples[known:] = pcm
        blocks = (len(samples) - _TAPS) // _BLOCK_IN
        self._rest = samples[blocks * _BLOCK_IN :].copy()
        shape, step = (blocks, _BLOCK_IN + _TAPS), samples.itemsize
        windows: npt.NDArray[np.float32] = np.ndarray(shape, np.float32, samples, 0, (_BLOCK_IN * step, step))
        made = windows @ self._WEIGHTS
        np.rint(made, out=made)
        np.minimum(made, _MOST, out=made)
        np.maximum(made, _LEAST, out=made)
        return made.astype(np.int16).reshape(-1)


def _joined(frames: list[av.AudioFrame]) -> Pcm:
    parts: list[Pcm] = [np.frombuffer(memoryview(frame.planes[0]), np.int16, frame.samples) for frame in frames]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else _NOTHING
