"""One stream of mono PCM from one sample rate to another, through PyAV's resampler.

One `Resampler` per stream and direction: it carries its filter from push to push, so how the audio
is cut into pushes does not change the sound. It keeps back about 1 ms, which `flush` gives out.
"""

from __future__ import annotations

from typing import Final

import av
import numpy as np

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


def _joined(frames: list[av.AudioFrame]) -> Pcm:
    parts: list[Pcm] = [np.frombuffer(memoryview(frame.planes[0]), np.int16, frame.samples) for frame in frames]
    if len(parts) == 1:
        return parts[0]
    return np.concatenate(parts) if parts else _NOTHING
