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
from numpy.lib.stride_tricks import as_strided

from media.audio import RATE_IN, RATE_OUT, Pcm
from media.playout import Playout

_Samples: TypeAlias = npt.NDArray[np.float32]
_Likeness: TypeAlias = npt.NDArray[np.float32]
"""0 to 1 for each delay in samples."""

_RATE: Final = 8_000
"""Hz at which both signals are compared."""
_PER_MS: Final = _RATE // 1000
_DOWN_IN: Final = RATE_IN // _RATE
_DOWN_OUT: Final = RATE_OUT // _RATE
_WINDOW: Final = 32 * _PER_MS
_SEGMENT_MS: Final = 128
_SEGMENT: Final = _SEGMENT_MS * _PER_MS
"""Samples compared with the playout: several periods of a deep voice, few enough to be of one sound."""
SPAN: Final = _SEGMENT * _DOWN_IN
"""Samples at 16 kHz that `explains` is given: the window and 96 ms before it."""
_LAG_MOST: Final = 600 * _PER_MS
"""Samples between handing out and hearing again: network, jitter buffers and a wireless loudspeaker."""
_LAG_MOST_S: Final = _LAG_MOST / _RATE
_HOP: Final = 20 * _PER_MS
"""Samples in one frame of playout."""
_HOP_S: Final = _HOP / _RATE
_FRAMES: Final = 64
"""Frames of playout that are kept: the reference of a window that waited half a second."""
_HELD: Final = _FRAMES * _HOP
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
_RECENT_MS: Final = _SEGMENT_MS // 2
_WEIGHT_OLD: Final = 0.3
"""Of the older half of what is compared, so that a talker who just began is seen beside the echo before."""
_WEIGHTS: Final = np.where(np.arange(_SEGMENT) < _SEGMENT // 2, _WEIGHT_OLD, 1.0).astype(np.float32)
_EMPHASIS: Final = np.float32(0.7)
"""First-order: evens out the spectrum of voices, so that likeness rests on more than the pitch."""
_BEFORE_OUT: Final = len(_TAPS_OUT) - 1 + _DOWN_OUT
"""Samples at 24 kHz before a frame that its filter and emphasis need."""
_SILENCE: Final[Pcm] = np.zeros(_HOP * _DOWN_OUT, np.int16)


def _decimated(samples: _Samples, taps: _Samples, down: int) -> _Samples:
    """Every `down`-th sample through the filter; the first `len(taps) - 1` are what was before."""
    count = (len(samples) - len(taps) + 1) // down
    step = samples.itemsize
    # The filter is symmetrical: its order does not matter.
    view = as_strided(samples, (count, len(taps)), (down * step, step), writeable=False)
    out: _Samples = np.einsum("ij,j->i", view, taps)
    return out


def _heard(pcm: Pcm) -> _Samples:
    """16 kHz to `_RATE`, as if silence had been before."""
    before = len(_TAPS_IN) - 1
    samples = np.zeros(before + len(pcm), np.float32)
    samples[before:] = pcm
    return _decimated(samples, _TAPS_IN, _DOWN_IN)


def _fft_size(least: int) -> int:
    """The next size of small factors."""
    size = 1 << (least - 1).bit_length()
    return size // 4 * 3 if size // 4 * 3 >= least else size


def guarded(playout: Playout) -> EchoGuard:
    """A guard that knows what leaves `playout`."""
    guard = EchoGuard()
    playout.tap = guard.played
    return guard


class EchoGuard:
    """Of one call. Not thread-safe; time is `time.monotonic()` seconds, given by the caller.

    `played` takes every frame that is handed out; frames that are not given were silence.
    `explains` is asked about windows in order; of those it is not asked about it learns nothing.
    """

    def __init__(self) -> None:
        self._frames: deque[Pcm] = deque(maxlen=_FRAMES)
        """Played and not yet in `_playout`: they are compared only when somebody speaks over them."""
        self._powers: list[float] = []
        """Mean square of each of the latest frames, `_FRAMES` at least."""
        self._end_at = -1e9
        """When the last of them ends."""
        self._active_until = -1e9
        self._playout: _Samples = np.zeros(0, np.float32)
        """Emphasised, at `_RATE`, up to `_write`; allocated when it is first needed."""
        self._write = 0
        self._before: _Samples = np.zeros(_BEFORE_OUT, np.float32)
        """The samples before the next frame at 24 kHz, for both filters."""
        self._lag = 0
        """The delay of the latest clear echo, in samples, whole milliseconds."""
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
        """20 ms at 24 kHz (480 samples, not written to any more) whose first sample leaves at `at`."""
        gap = at - self._end_at
        if gap > _GAP_S:
            silent = min(round(min(gap, 1e6) / _HOP_S), _FRAMES)
            self._frames.extend([_SILENCE] * silent)
            self._powers.extend([0.0] * silent)
            self._end_at = at
        samples = frame.astype(np.float32)
        power = float(samples @ samples) / len(samples)
        self._frames.append(frame)
        self._powers.append(power)
        if len(self._powers) > 4 * _FRAMES:
            del self._powers[:-_FRAMES]
        self._end_at += _HOP_S
        if power > _LOUD:
            self._active_until = self._end_at + _LAG_MOST_S

    def explains(self, samples: Pcm, arrived_at: float) -> bool:
        """Whether the last 32 ms of `samples` (`span` at 16 kHz) are the bot's own voice coming back.

        `arrived_at`: of the last sample.
        """
        if arrived_at > self._active_until:
            return False
        behind = round((self._end_at - arrived_at) * _RATE)
        bound = self._loudest(behind)
        if bound < _LOUD:
            return False
        heard = _heard(samples)
        window = heard[-_WINDOW:]
        ratio = float(window @ window) / _WINDOW / bound
        sure = self._sure()
        if ratio <= sure:
            self._learn(ratio)
            return True
        likeness = self._recognised(_Segment(heard), behind, (_db(ratio), _db(sure)), arrived_at)
        if likeness >= _LIKENESS_CLEAR:
            # A doubtful one must not teach that echo is as loud as it: that would silence a soft talker.
            self._learn(ratio)
        return likeness > 0

    def quiet(self, power: float, arrived_at: float) -> None:
        """A window of this mean square was as quiet as the room: no stronger than that is the echo."""
        if arrived_at > self._active_until:
            return
        bound = self._loudest(round((self._end_at - arrived_at) * _RATE))
        if bound >= _LOUD:
            self._learn(power / bound)

    def _loudest(self, behind: int) -> float:
        """Mean square of the loudest frame that may be heard in a window ending `behind` samples before `_end_at`."""
        size = len(self._powers)
        first = size + -(behind + _LAG_MOST + _WINDOW) // _HOP
        last = size + min(0, -behind // _HOP)
        return max(self._powers[max(0, first) : max(0, last)], default=0.0)

    def _catch_up(self) -> None:
        """Take the frames played since the last time into `_playout`."""
        frames = list(self._frames)
        if not frames:
            return
        self._frames.clear()
        size = len(frames) * _HOP
        if self._write + size > len(self._playout):
            if not len(self._playout):
                self._playout = np.zeros(_CAPACITY, np.float32)
            kept = min(self._write, _HELD)
            self._playout[:kept] = self._playout[self._write - kept : self._write].copy()
            self._write = kept
        samples = np.concatenate((self._before, *frames), dtype=np.float32, casting="unsafe")
        self._before = samples[-_BEFORE_OUT:]
        decimated = _decimated(samples, _TAPS_OUT, _DOWN_OUT)
        self._playout[self._write : self._write + size] = decimated[1:] - _EMPHASIS * decimated[:-1]
        self._write += size

    def _reference(self, behind: int, most: int, least: int) -> _Samples:
        """What left from `most` samples and a segment before a window's end until `least` before it."""
        end = self._write - behind - least
        start = end - (most - least) - _SEGMENT
        reference = np.zeros(end - start, np.float32)
        known = self._playout[max(0, start) : max(0, min(end, self._write))]
        if len(known):
            first = max(0, -start)
            reference[first : first + len(known)] = known
        return reference

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

    def _recognised(self, segment: _Segment, behind: int, levels: tuple[float, float], now: float) -> float:
        """The likeness of a window that is echo, 0 of one that is not.

        `levels`: of the window, and the one under which it is no talker; decibels to the playout.
        """
        self._catch_up()
        is_lag_known = now < self._lag_until
        if is_lag_known:
            least, most = max(0, self._lag - _LAG_SHAKE), min(_LAG_MOST, self._lag + _LAG_SHAKE)
            alike = segment.likeness(self._reference(behind, most, least))
            best = int(alike.argmax())
            if alike[best] >= _needed(_LIKENESS_KNOWN, *levels):
                return self._see(least + best, float(alike[best]), now)
        alike = segment.likeness(self._reference(behind, _LAG_MOST, 0))
        lag = int(alike.argmax())
        if alike[lag] < _needed(_LIKENESS_ELSEWHERE if is_lag_known else _LIKENESS, *levels):
            return 0.0
        return self._see(lag, float(alike[lag]), now)

    def _see(self, lag: int, likeness: float, now: float) -> float:
        if likeness >= _LIKENESS_CLEAR:
            self._lag, self._lag_until = lag // _PER_MS * _PER_MS, now + _LAG_KEPT_S
        return likeness


class _Segment:
    """What was heard, at `_RATE`, to be compared with playout."""

    def __init__(self, heard: _Samples) -> None:
        emphasised = heard.copy()
        emphasised[1:] -= _EMPHASIS * heard[:-1]
        self._weighted = emphasised * _WEIGHTS
        self._energy = float(self._weighted @ emphasised)

    def likeness(self, reference: _Samples) -> _Likeness:
        """Normalised cross-correlation with `reference` for each delay in samples, the shortest first.

        `reference`: whole milliseconds, a segment longer than the range of delays.
        """
        delays = len(reference) - _SEGMENT
        # Both at once: two rows cost little more than one.
        both = np.zeros((2, _fft_size(len(reference))), np.float32)
        both[0, : len(reference)] = reference
        both[1, :_SEGMENT] = self._weighted
        spectra = np.fft.rfft(both)
        product = np.fft.irfft(spectra[0] * np.conj(spectra[1]), both.shape[1])[:delays]
        # The energies change slowly: those of whole milliseconds do.
        by_ms = reference.reshape(-1, _PER_MS)
        total = np.zeros(len(by_ms) + 1, np.float32)
        np.cumsum(np.einsum("ij,ij->i", by_ms, by_ms), out=total[1:])
        energy = total[_SEGMENT_MS:] - total[_RECENT_MS : _RECENT_MS - _SEGMENT_MS] * (1 - _WEIGHT_OLD)
        energy = (energy - _WEIGHT_OLD * total[:-_SEGMENT_MS])[:-1]
        strongest = float(energy.max())
        if strongest <= 0 or self._energy <= 0:
            return np.zeros(delays, np.float32)
        scale = 1 / np.sqrt(self._energy * np.maximum(energy, _FAINT * strongest))
        alike: _Likeness = np.abs(product) * np.repeat(scale.astype(np.float32), _PER_MS)
        return alike[::-1]
