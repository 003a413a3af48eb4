"""Tells a caller who speaks from the bot's own voice coming back. Sans-I/O.

An `EchoGuard` is given what is played on one call, and asked of each 32 ms window with sound whether
delayed, softened playout explains it. It must never take a talker for echo because the bot happens to
speak as well. While nothing was played for 0.6 s it does nothing, and its memory is fixed.

Both signals are looked at in 8 kHz, where nearly all of a small loudspeaker's voice is. Two kinds of
evidence are weighed, because either alone is wrong in the first second, when nothing is known yet:

- Level: the window relative to the loudest playout of the last 0.6 s. Below -32 dB it is echo or
  noise whatever it is like; that bound falls to what comes back, so that behind a working canceller
  a soft voice counts.
- Likeness: the normalised cross-correlation of the last 128 ms with the playout, over every delay up
  to 0.6 s. Chance makes two voices alike to 0.2, seldom 0.35; an echo is alike to 0.5 and more, in a
  room that swallows the direct sound still to 0.4. Where the delay is known, less is enough around
  it, and more is asked elsewhere.

The louder a window is for an echo, the more alike it must be to pass for one. The reference is what
was handed out, so Opus, the network and the room are part of the path; a delay that drifts or jumps
is found anew in every window.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from media.audio import RATE_IN, RATE_OUT, Pcm
from media.playout import Playout

_Samples: TypeAlias = npt.NDArray[np.float32]
_Likeness: TypeAlias = npt.NDArray[np.float64]
"""0 to 1 for each delay in samples."""

_RATE: Final = 8_000
"""Hz at which both signals are compared."""
_PER_MS: Final = _RATE // 1000
_DOWN_IN: Final = RATE_IN // _RATE
_DOWN_OUT: Final = RATE_OUT // _RATE
_WINDOW: Final = 32 * _PER_MS
_SEGMENT: Final = 128 * _PER_MS
"""Samples compared with the playout: several periods of a deep voice, few enough to be of one sound."""
SPAN: Final = _SEGMENT * _DOWN_IN
"""Samples at 16 kHz that `explains` is given: the window and 96 ms before it."""
_LAG_MOST: Final = 600 * _PER_MS
"""Samples between handing out and hearing again: network, jitter buffers and a wireless loudspeaker."""
_LAG_MOST_S: Final = _LAG_MOST / _RATE
_REFERENCE: Final = _LAG_MOST + _SEGMENT
_BLOCK: Final = 6144
"""FFT size: at least `_REFERENCE`, of small factors."""
_HOP: Final = 20 * _PER_MS
"""Samples in one frame of playout."""
_HOP_S: Final = _HOP / _RATE
_HELD: Final = 64 * _HOP
"""Samples of playout that are always kept: the reference of a window that waited half a second."""
_CAPACITY: Final = 2 * _HELD
"""In the buffer, 80 KB; when it is full `_HELD` move to the front."""
_GAP_S: Final = 1.5 * _HOP_S
"""Frames further apart than this have silence between them; closer, their clock shook."""
_LOUD: Final = 32768.0**2 * 10.0**-6.0
"""Mean square (-60 dBFS) under which a played frame is a pause."""

_SURE_MOST: Final = 10.0**-3.2
"""Power ratio (-32 dB) to the loudest recent playout under which sound beside it is never taken for a
talker: an echo that soft drowns in noise and need not be alike."""
_SURE_LEAST: Final = 10.0**-7.0
_SURE_MARGIN: Final = 10.0**0.5
"""Over the strongest echo of late (5 dB): speech excites a room unevenly."""
_COUPLING_BLOCK: Final = 16
"""Windows beside playout (0.5 s) whose strongest echo is remembered as one."""
_COUPLING_BLOCKS: Final = 6
"""Blocks remembered (3 s). Until all are there `_SURE_MOST` holds."""

_LIKENESS: Final = 0.33
"""Of two signals one of which is the echo of the other; one in a hundred windows of echo is less alike."""
_LIKENESS_LOUD: Final = 0.55
"""Asked of a window far louder than an echo should be: a talker, unless it is nothing but playout."""
_LIKENESS_KNOWN: Final = 0.22
"""Enough where the delay is known: chance has a tenth of the tries."""
_LIKENESS_ELSEWHERE: Final = 0.5
"""Asked of another delay than the one that is known: two voices of one kind are alike to that at times."""
_LIKENESS_CLEAR: Final = 0.5
"""An echo beyond doubt: its delay is remembered."""
_LOUD_FROM_DB: Final = -15.0
"""Ratio to the loudest recent playout that no echo has after a canceller; from here on likeness must be higher."""
_LOUD_SLOPE: Final = 0.015
"""More likeness for every further decibel."""
_SOFT_RANGE_DB: Final = 17.0
"""Over the bound under which a window is no talker: so far likeness rises to its full measure. Softer
echoes are mixed with more noise."""
_LAG_SHAKE: Final = 25 * _PER_MS
"""Samples by which a delay seems to change from window to window: arrival times shake."""
_LAG_KEPT_S: Final = 5.0
"""Seconds for which a delay is believed without being seen."""
_FAINT: Final = 0.03
"""Part of the strongest reference's energy under which none is compared: likeness to near-silence is chance."""


def _needed(least: float, ratio_db: float, sure_db: float) -> float:
    """The likeness asked of a window at this level, where `least` is asked of an ordinary echo."""
    if ratio_db > _LOUD_FROM_DB:
        return max(least, min(_LIKENESS_LOUD, least + _LOUD_SLOPE * (ratio_db - _LOUD_FROM_DB)))
    return least * min(1.0, (ratio_db - sure_db) / _SOFT_RANGE_DB)


def _db(ratio: float) -> float:
    return 10.0 * math.log10(ratio)


def _lowpass(down: int) -> _Samples:
    """Windowed sinc for decimation by `down`: 12 taps a phase, 3 dB down at 3.6 kHz, 40 dB at 4.4 kHz."""
    size = 12 * down
    taps = np.sinc((np.arange(size) - (size - 1) / 2) * 0.9 / down) * np.hamming(size)
    return np.asarray(taps / taps.sum(), np.float32)


_TAPS_IN: Final = _lowpass(_DOWN_IN)
_TAPS_OUT: Final = _lowpass(_DOWN_OUT)
_RECENT: Final = _SEGMENT // 2
_WEIGHT_OLD: Final = 0.3
"""Of the older half of what is compared, so that a talker who just began is seen beside the echo before."""
_WEIGHTS: Final = np.where(np.arange(_SEGMENT) < _RECENT, _WEIGHT_OLD, 1.0).astype(np.float32)
_EMPHASIS: Final = np.float32(0.7)
"""First-order: evens out the spectrum of voices, so that likeness rests on more than the pitch."""


def _decimated(heard: Pcm) -> _Samples:
    """16 kHz to `_RATE`, as if silence had been before."""
    return np.convolve(heard.astype(np.float32), _TAPS_IN)[: len(heard) : _DOWN_IN]


def _emphasised(samples: _Samples) -> _Samples:
    out = samples.copy()
    out[1:] -= _EMPHASIS * samples[:-1]
    return out


def guarded(playout: Playout) -> EchoGuard:
    """A guard that knows what leaves `playout`."""
    guard = EchoGuard()
    playout.tap = guard.played
    return guard


class EchoGuard:
    """Of one call. Not thread-safe; time is `time.monotonic()` seconds, given by the caller.

    `played` takes every frame that is handed out; frames that are not given were silence.
    `explains` is asked about every window, in order.
    """

    def __init__(self) -> None:
        self._playout: _Samples = np.zeros(_CAPACITY, np.float32)
        self._powers = np.zeros(_CAPACITY // _HOP, np.float32)
        """Mean square of each frame of `_playout`."""
        self._write = _HELD
        self._end_at = -1e9
        """When the sample at `_write` would leave."""
        self._active_until = -1e9
        self._before: _Samples = np.zeros(len(_TAPS_OUT) - 1, np.float32)
        """The playout's last samples at 24 kHz, for the filter."""
        self._lag = 0
        """The delay of the latest clear echo, in samples."""
        self._lag_until = -1e9
        self._blocks: deque[float] = deque(maxlen=_COUPLING_BLOCKS)
        """Ratio to the playout of the strongest echo, or of the room, in each of the latest half seconds."""
        self._strongest = 0.0
        self._count = 0

    @property
    def span(self) -> int:
        """16 kHz samples that `explains` is given."""
        return SPAN

    def played(self, frame: Pcm, at: float) -> None:
        """20 ms at 24 kHz (480 samples) whose first sample leaves at `at`."""
        gap = at - self._end_at
        if gap > _GAP_S:
            self._silence(round(min(gap, _CAPACITY / _RATE) / _HOP_S))
            self._end_at = at
        samples = frame.astype(np.float32)
        filtered = np.convolve(np.concatenate((self._before, samples)), _TAPS_OUT, "valid")
        self._before = samples[-len(self._before) :]
        self._make_room(1)
        end = self._write + _HOP
        self._playout[self._write : end] = filtered[::_DOWN_OUT]
        out = self._playout[self._write : end]
        power = float(out @ out) / _HOP
        self._powers[self._write // _HOP] = power
        self._write = end
        self._end_at += _HOP_S
        if power > _LOUD:
            self._active_until = self._end_at + _LAG_MOST_S

    def explains(self, samples: Pcm, arrived_at: float) -> bool:
        """Whether the last 32 ms of `samples` (`span` at 16 kHz) are the bot's own voice coming back.

        `arrived_at`: of the last sample.
        """
        if arrived_at > self._active_until:
            return False
        end = self._position(arrived_at)
        bound = self._loudest(end)
        if bound < _LOUD:
            return False
        window = _decimated(samples[-(_WINDOW * _DOWN_IN) :])
        ratio = float(window @ window) / _WINDOW / bound
        sure = self._sure()
        if ratio <= sure:
            self._learn(ratio)
            return True
        alike = self._likeness(_decimated(samples), end)
        if alike is None:
            return False
        likeness = self._recognised(alike, (_db(ratio), _db(sure)), arrived_at)
        if likeness >= _LIKENESS_CLEAR:
            # A doubtful one must not teach that echo is as loud as it: that would silence a soft talker.
            self._learn(ratio)
        return likeness > 0

    def quiet(self, power: float, arrived_at: float) -> None:
        """A window of this mean square was as quiet as the room: no stronger than that is the echo."""
        if arrived_at > self._active_until:
            return
        bound = self._loudest(self._position(arrived_at))
        if bound >= _LOUD:
            self._learn(power / bound)

    def _position(self, at: float) -> int:
        """Index in the buffer of the sample that left at `at`."""
        return self._write + round((at - self._end_at) * _RATE)

    def _silence(self, frames: int) -> None:
        frames = min(frames, _HELD // _HOP)
        self._make_room(frames)
        end = self._write + frames * _HOP
        self._playout[self._write : end] = 0
        self._powers[self._write // _HOP : end // _HOP] = 0
        self._write = end
        self._before = np.zeros_like(self._before)

    def _make_room(self, frames: int) -> None:
        if self._write + frames * _HOP <= _CAPACITY:
            return
        start = self._write - _HELD
        self._playout[:_HELD] = self._playout[start : self._write].copy()
        self._powers[: _HELD // _HOP] = self._powers[start // _HOP : self._write // _HOP].copy()
        self._write = _HELD

    def _loudest(self, end: int) -> float:
        """Mean square of the loudest frame that a window ending at `end` can hold an echo of."""
        first = max(0, (end - _LAG_MOST - _WINDOW) // _HOP)
        last = min(self._write, end) // _HOP
        return float(self._powers[first:last].max()) if last > first else 0.0

    def _sure(self) -> float:
        """The ratio to the loudest recent playout under which a window is no talker."""
        if len(self._blocks) < _COUPLING_BLOCKS:
            return _SURE_MOST
        strongest = max(self._strongest, *self._blocks) * _SURE_MARGIN
        return min(max(strongest, _SURE_LEAST), _SURE_MOST)

    def _learn(self, ratio: float) -> None:
        self._strongest = max(self._strongest, ratio)
        self._count += 1
        if self._count == _COUPLING_BLOCK:
            self._blocks.append(self._strongest)
            self._strongest, self._count = 0.0, 0

    def _recognised(self, alike: _Likeness, levels: tuple[float, float], now: float) -> float:
        """The likeness of a window that is echo, 0 of one that is not.

        `levels`: of the window, and the one under which it is no talker; decibels to the playout.
        """
        is_lag_known = now < self._lag_until
        if is_lag_known:
            first = max(0, self._lag - _LAG_SHAKE)
            lag = first + int(alike[first : self._lag + _LAG_SHAKE].argmax())
            if alike[lag] >= _needed(_LIKENESS_KNOWN, *levels):
                return self._see(lag, float(alike[lag]), now)
        lag = int(alike.argmax())
        if alike[lag] < _needed(_LIKENESS_ELSEWHERE if is_lag_known else _LIKENESS, *levels):
            return 0.0
        return self._see(lag, float(alike[lag]), now)

    def _see(self, lag: int, likeness: float, now: float) -> float:
        if likeness >= _LIKENESS_CLEAR:
            self._lag, self._lag_until = lag, now + _LAG_KEPT_S
        return likeness

    def _likeness(self, heard: _Samples, end: int) -> _Likeness | None:
        """Normalised cross-correlation with the playout for each delay in samples; None for silence."""
        segment = _emphasised(heard)
        weighted = segment * _WEIGHTS
        reference = np.zeros(_REFERENCE, np.float32)
        start = end - _REFERENCE
        known = self._playout[max(0, start) : min(end, self._write)]
        reference[max(0, -start) : max(0, -start) + len(known)] = known
        reference = _emphasised(reference)
        product = np.fft.irfft(np.fft.rfft(reference, _BLOCK) * np.conj(np.fft.rfft(weighted, _BLOCK)), _BLOCK)
        total = np.zeros(_REFERENCE + 1)
        np.cumsum(reference**2, out=total[1:])
        energy = total[_SEGMENT:] - total[_RECENT : _REFERENCE + 1 - _SEGMENT + _RECENT] * (1 - _WEIGHT_OLD)
        energy -= _WEIGHT_OLD * total[: _REFERENCE + 1 - _SEGMENT]
        scale = float(weighted @ segment) * np.maximum(energy, _FAINT * energy.max())
        if scale[0] <= 0:
            return None
        by_position: _Likeness = np.abs(product[: _LAG_MOST + 1]) / np.sqrt(scale)
        return by_position[::-1]
