"""When speech began and when it ended, from voice probabilities and levels. Sans-I/O.

Silence is counted in media time from the end of the last voiced sub-frame, not from when the
detector noticed: the detector's lag costs nothing as long as it is shorter than the silence asked
for. The network's probability stays high for 30 to 130 ms after the sound ended, so it only says
*that* there is speech; the level of 8 ms sub-frames says where in it the voice begins and ends. A
turn must never be ended while the network still hears speech, unless the level has been at the
noise floor for the whole silence.

    QUIET ----p >= off----> RISING ----p >= threshold twice, or clear voice----> SPEAKING
      ^                       |                                                 |      ^
      |<------p < off---------+                                          not voiced  voiced
      |                                                                         v      |
      +<------------------silence long enough: SpeechStopped--------------------PAUSING

`off` is the threshold less 0.15. Contract: `hear` once per sub-frame, and after every fourth one
`judge` with the probability of that window; each returns at most one event. The result depends on
this sequence alone, so it is the same whatever the chunks in which the audio came.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeAlias

SUBFRAME: Final = 128
"""Samples at 16 kHz in one level: 8 ms, the resolution of every decision."""

SUBFRAME_MS: Final = 8.0

SUBFRAMES: Final = 4
"""Sub-frames in one 32 ms window, for which the network gives a probability."""


def _db(decibels: float) -> float:
    return float(10.0 ** (decibels / 10.0))


def _dbfs(decibels: float) -> float:
    """Mean square of int16 samples at this level below full scale."""
    return 32768.0**2 * _db(decibels)


_FLOOR_LEAST: Final = _dbfs(-72.0)
"""Below the self-noise of any microphone: digital silence counts as a floor of this level."""

_SOUND_LEAST: Final = _dbfs(-62.0)
"""Nothing softer than this is called voice, however quiet the room."""

_FLOOR_BLOCK: Final = 16
"""Windows in one block of the floor (0.5 s): the floor is the quietest window of the blocks kept."""

_FLOOR_BLOCKS: Final = 5
"""Blocks kept: 2.5 to 3 s, longer than people speak without a gap, short enough to follow a room."""

_OVER_FLOOR: Final = _db(5.0)
"""Voice exceeds the floor by this much; steady noise fluctuates by 2 to 3 dB in 8 ms."""

_END_RANGE: Final = _db(-28.0)
"""Softer than the talker by this much is reverberation and breath, not the word's end any more."""

_ONSET_RANGE: Final = _db(-32.0)
"""First consonants are soft; what precedes the first vowel is searched a little deeper."""

_TALKER_DECAY: Final = _db(-0.1)
"""Per window, 3 dB/s: the level of the talker follows somebody who turns away."""

_OFF_BELOW: Final = 0.15
"""Silero's own hysteresis: speech goes on until the probability is this far below the threshold."""

_STRONG: Final = 0.85
"""One window this sure needs no second one, only a voiced start of the next."""

_STRONG_RUN: Final = 2
"""Voiced sub-frames after such a window: 16 ms, longer than a click rings at full level."""

_SEARCH_BACK: Final = 20
"""Sub-frames (160 ms) before the first likely window in which the onset may lie; doubt older than that is no onset."""

_BRIDGE: Final = 2
"""Sub-frames (16 ms) of closure inside the first syllable that the search for the onset steps over."""

_LAG_MOST: Final = 18
"""Sub-frames (144 ms): the network never stays high for longer, so a soft voice that it hears for
longer than this after the last loud sub-frame is voice."""

_HOLD: Final = 8
"""Sub-frames (64 ms) by which sound that just came back may delay the stop until the network has judged it."""

_HISTORY: Final = 64
"""Sub-frames remembered (0.5 s): more than any search looks back."""


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """`threshold`: 0–1, probability that counts as speech; milliseconds for the rest."""

    threshold: float = 0.5
    prefix_padding_ms: int = 300
    silence_duration_ms: int = 500


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """`audio_start_ms`: media time incl. prefix padding (≥ 0). `onset_ms`/`onset_at`: the first voiced
    frame, media time and `time.monotonic()` of its arrival."""

    audio_start_ms: int
    onset_ms: float
    onset_at: float


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """`audio_end_ms`: media time at which the silence was long enough. `ended_ms`/`ended_at`: the end of
    the last voiced frame, media time and `time.monotonic()` of its arrival."""

    audio_end_ms: int
    ended_ms: float
    ended_at: float


SpeechEvent: TypeAlias = SpeechStarted | SpeechStopped


class EndpointState(Enum):
    QUIET = "quiet"
    """No speech."""
    RISING = "rising"
    """The last window may be the beginning of speech."""
    SPEAKING = "speaking"
    """A turn is under way and the last sub-frame was voiced."""
    PAUSING = "pausing"
    """A turn is under way and silence is being counted."""


class NoiseFloor:
    """The level of the room: the quietest 32 ms of the last 2.5 to 3 s (minimum statistics).

    It needs no notion of speech. Until half a second was heard it is at its least, so that a call
    that begins in the middle of a word is not taken for a loud room.
    """

    __slots__ = ("_blocks", "_count", "_least", "power")

    def __init__(self) -> None:
        self.power = _FLOOR_LEAST
        self._blocks: deque[float] = deque(maxlen=_FLOOR_BLOCKS)
        self._least = math.inf
        self._count = 0

    def update(self, power: float) -> None:
        """The mean square of one more window."""
        self._count += 1
        if power < self._least:
            self._least = power
            if self._blocks and power < self.power:
                self.power = max(power, _FLOOR_LEAST)
        if self._count == _FLOOR_BLOCK:
            self._blocks.append(self._least)
            self.power = max(min(self._blocks), _FLOOR_LEAST)
            self._least = math.inf
            self._count = 0


class Endpointer:
    """One caller's turns. `position_ms` is the media time of everything heard."""

    def __init__(self, settings: EndpointSettings) -> None:
        self.state = EndpointState.QUIET
        self._floor = NoiseFloor()
        self._base_ms = 0.0
        self._count = 0
        """Sub-frames heard since `_base_ms`; every index below counts them."""
        self._history: deque[tuple[float, float]] = deque(maxlen=_HISTORY)
        """(mean square, arrival) of the latest sub-frames."""
        self._window = 0
        """The first sub-frame of the window that is not judged yet."""
        self._probability = 0.0
        self._talker = 0.0
        """Mean square of the talker's loudest recent window; 0 while nobody speaks."""
        self._loud_run = 0
        self._loud_until = 0
        """End of the last sub-frame as loud as voice, whatever the network said of it."""
        self._sound_until = 0
        """End of the last sub-frame that is not clear silence."""
        self._first = 0
        """First sub-frame of the first window of RISING."""
        self._ended = 0
        self._ended_at = 0.0
        self._previous = 0
        """Where the previous turn was stopped."""
        self.configure(settings)

    @property
    def position_ms(self) -> float:
        return self._base_ms + self._count * SUBFRAME_MS

    @property
    def in_turn(self) -> bool:
        """Between a `SpeechStarted` and its `SpeechStopped`."""
        return self.state is EndpointState.SPEAKING or self.state is EndpointState.PAUSING

    @property
    def quiet(self) -> bool:
        return self.state is EndpointState.QUIET

    @property
    def floor(self) -> float:
        """Mean square of the room's noise."""
        return self._floor.power

    def configure(self, settings: EndpointSettings) -> None:
        """Takes effect with the next sub-frame; what was heard so far is kept."""
        self._threshold = settings.threshold
        self._off = max(settings.threshold - _OFF_BELOW, settings.threshold * 0.5)
        self._strong = max(_STRONG, settings.threshold)
        self._silence_ms = settings.silence_duration_ms
        self._silence = max(1, math.ceil(settings.silence_duration_ms / SUBFRAME_MS))
        self._prefix_ms = settings.prefix_padding_ms
        self._set_levels()

    def reset(self, position_ms: float) -> None:
        """Forget a turn under way, without an event; media time goes on at `position_ms`. The room stays known."""
        self.state = EndpointState.QUIET
        self._base_ms = position_ms
        self._count = self._window = self._loud_until = self._sound_until = self._loud_run = 0
        self._first = self._ended = self._previous = 0
        self._talker = self._probability = 0.0
        self._history.clear()
        self._set_levels()

    def hear(self, power: float, arrived_at: float) -> SpeechEvent | None:
        """One sub-frame: mean square of its int16 samples, and when its last sample arrived."""
        self._count = count = self._count + 1
        self._history.append((power, arrived_at))
        if power > self._sound_from:
            self._sound_until = count
        if power > self._loud_from:
            self._loud_run += 1
            self._loud_until = count
        else:
            self._loud_run = 0
        state = self.state
        if state is EndpointState.QUIET:
            return None
        if state is EndpointState.RISING:
            sure = self._probability >= self._strong and count - self._window <= self._loud_run
            return self._start() if sure and self._loud_run >= _STRONG_RUN else None
        self.state = EndpointState.SPEAKING if self._loud_run else EndpointState.PAUSING
        return self._stop() if self._silent_enough() else None

    def judge(self, probability: float, *, is_foreign: bool = False) -> SpeechEvent | None:
        """The network's answer for the window that the last `SUBFRAMES` sub-frames made.

        `is_foreign`: its sound is not of the caller's room, whose noise floor stays what it was.
        """
        before, self._probability = self._probability, probability
        powers = [self._history[-back][0] for back in range(1, SUBFRAMES + 1)]
        mean = sum(powers) / SUBFRAMES
        if not is_foreign:
            self._floor.update(mean)
        window, self._window = self._window, self._count
        event: SpeechEvent | None = None
        if not self.in_turn:
            event = self._rise(window, before, mean)
        elif probability >= self._off:
            self._follow(window, mean)
        else:
            self.state = EndpointState.PAUSING
        self._set_levels()
        if event is None and self.in_turn and self._silent_enough():
            event = self._stop()
        return event

    def _rise(self, window: int, before: float, mean: float) -> SpeechEvent | None:
        probability = self._probability
        if probability < self._off:
            self.state = EndpointState.QUIET
            self._talker = 0.0
            return None
        if self.state is EndpointState.QUIET:
            self.state = EndpointState.RISING
            self._first = max(window, self._previous)
            self._talker = mean
            return None
        self._first = max(self._first, window - _SEARCH_BACK)
        self._talker = max(self._talker, mean)
        sure = probability >= self._threshold and (before >= self._threshold or probability >= self._strong)
        return self._start() if sure and self._loud_until > self._first else None

    def _follow(self, window: int, mean: float) -> None:
        """The network hears speech in the window just judged: what was loud in it was voice."""
        if self._probability >= self._threshold:
            self._talker = max(self._talker * _TALKER_DECAY, mean)
        if self._loud_until > window:
            self._end_at(self._loud_until)
        if self._probability >= self._threshold and self._sound_until > window:
            self._end_at(self._sound_until - _LAG_MOST)

    def _end_at(self, index: int) -> None:
        if index > self._ended:
            self._ended = index
            self._ended_at = self._history[index - self._count - 1][1]

    def _silent_enough(self) -> bool:
        """Whether the silence since the last voiced sub-frame ends the turn here."""
        if self._count - self._ended < self._silence:
            return False
        voice_perhaps = self._loud_run > 0 or self._loud_until > self._window
        if voice_perhaps and self._count - self._ended < self._silence + _HOLD:
            return False
        return self._probability < self._off or self._count - self._sound_until >= self._silence

    def _start(self) -> SpeechStarted:
        onset = self._onset()
        onset_ms = self._base_ms + onset * SUBFRAME_MS
        # Where an index is older than the history, the clock of the oldest one known is the nearest truth.
        onset_at = self._history[max(onset - self._count, -len(self._history))][1]
        self._ended = 0
        self._end_at(max(self._loud_until, self._first + 1))
        self.state = EndpointState.SPEAKING
        floor_ms = max(0, math.ceil(self._base_ms + self._previous * SUBFRAME_MS))
        start_ms = max(floor_ms, math.floor(onset_ms - self._prefix_ms))
        return SpeechStarted(audio_start_ms=start_ms, onset_ms=onset_ms, onset_at=onset_at)

    def _onset(self) -> int:
        """Index of the first voiced sub-frame: from the first likely window, forward to sound, then back."""
        loud = max(self._talker * _ONSET_RANGE, self._floor.power * _OVER_FLOOR, _SOUND_LEAST)
        oldest = self._count - len(self._history)
        onset = max(self._first, oldest)
        while onset < self._count - 1 and self._history[onset - self._count][0] <= loud:
            onset += 1
        if onset > self._first:
            return onset
        earliest = max(self._first - _SEARCH_BACK, self._previous, oldest)
        closed = 0
        for index in range(onset - 1, earliest - 1, -1):
            if self._history[index - self._count][0] > loud:
                onset, closed = index, 0
            else:
                closed += 1
                if closed > _BRIDGE:
                    break
        return onset

    def _stop(self) -> SpeechStopped:
        ended_ms = self._base_ms + self._ended * SUBFRAME_MS
        event = SpeechStopped(audio_end_ms=math.ceil(self.position_ms), ended_ms=ended_ms, ended_at=self._ended_at)
        self.state = EndpointState.QUIET
        self._talker = 0.0
        self._previous = self._count
        self._set_levels()
        return event

    def _set_levels(self) -> None:
        """What counts as voice and as sound until the next window is judged."""
        over_floor = max(self._floor.power * _OVER_FLOOR, _SOUND_LEAST)
        soft = self._talker * _END_RANGE
        self._loud_from = max(over_floor, soft)
        # In a loud room voice may drown in the floor: there the level proves no silence.
        self._sound_from = min(over_floor, max(soft, _SOUND_LEAST)) if self._talker else over_floor
