"""What is to be said, and what has been heard. Sans-I/O.

A `Playout` holds the 24 kHz PCM of the utterances that a call is to speak, hands it out in 20 ms
frames, and knows to the sample how much of each utterance has left. It must never hand out a sample
of an utterance after that utterance was cut: a cut leaves only a fade of at most 10 ms, and
whatever is pushed later for a cut generation is dropped.

    QUEUED --first frame--> SPEAKING --finished and empty--> DONE
       \\________ cut ___________/--> CUT

Generations are increasing integers given by the caller, one per utterance, spoken in order.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

import numpy as np

from media.audio import FRAME_OUT, RATE_OUT, Pcm
from media.prepared import Source

_SAMPLES_PER_MS: Final = RATE_OUT // 1000
_FADE: Final = 10 * _SAMPLES_PER_MS
"""Samples left of an utterance that is cut while it sounds: 10 ms, too short to hear, long enough not to click."""
_END_FADE: Final = 2 * _SAMPLES_PER_MS
"""Samples over which an utterance that stops at full level is brought to zero in its last, padded frame."""
_LOUD: Final = 328
"""Sample value, 1 % of full scale: a step from there to silence clicks."""
_MAX_UTTERANCES: Final = 256
"""Utterances waiting at once; a call that queues more has lost its way."""
_REMEMBERED: Final = 256
"""Ended utterances whose `heard_ms` can still be asked for."""


class PlayoutFull(Exception):
    """The push would exceed the capacity; nothing of it was taken."""


class PlayoutEventKind(Enum):
    STARTED = "started"
    """The first frame of the utterance was handed out."""
    LOW = "low"
    """Less than `low_ms` is left and the utterance is not finished: more may be pushed."""
    CUT = "cut"
    """The fade that ends a cut utterance was handed out; nothing of it follows."""
    DONE = "done"
    """The utterance was finished and its last sample was handed out."""


@dataclass(frozen=True, slots=True)
class PlayoutEvent:
    kind: PlayoutEventKind
    generation: int
    heard_ms: float
    at: float
    """`time.monotonic()` seconds of the frame that caused the event."""


@dataclass(frozen=True, slots=True)
class Heard:
    """How much of an utterance had left when it was cut."""

    generation: int
    heard_ms: float


class _Utterance:
    """One utterance that is not over: chunks not handed out yet, and how much was."""

    __slots__ = ("chunks", "finished", "generation", "heard", "left", "low", "offset", "sources")

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.chunks: deque[Pcm] = deque()
        self.sources: deque[Source | None] = deque()
        """What each chunk is of, where that is prepared."""
        self.offset = 0
        """Samples of the first chunk already handed out."""
        self.left = 0
        self.heard = 0
        self.finished = False
        self.low = False
        """LOW was told and the level has not been above it since."""

    def append(self, pcm: Pcm, source: Source | None) -> None:
        size = len(pcm)
        if size == 0:
            return
        if self.chunks and size < FRAME_OUT and len(self.chunks[-1]) < FRAME_OUT and len(self.chunks) > 1:
            # Crumbs are joined, so that the number of chunks is bounded by the samples.
            self.chunks[-1] = np.concatenate((self.chunks[-1], pcm))
        else:
            self.chunks.append(pcm)
            self.sources.append(source)
        self.left += size

    def take(self, count: int) -> Pcm:
        """The next `count` samples, of which there are that many; copied only across chunks."""
        self.left -= count
        first = self.chunks[0]
        end = self.offset + count
        if end <= len(first):
            out = first[self.offset : end]
            self._advance(end)
            return out
        parts = []
        while count:
            part = self.chunks[0][self.offset : self.offset + count]
            self._advance(self.offset + len(part))
            parts.append(part)
            count -= len(part)
        return np.concatenate(parts)

    def _advance(self, offset: int) -> None:
        if offset == len(self.chunks[0]):
            self.chunks.popleft()
            self.sources.popleft()
            self.offset = 0
        else:
            self.offset = offset

    @property
    def source(self) -> Source | None:
        """What the next frame is of."""
        source = self.sources[0]
        if source is None or self.offset % FRAME_OUT or self.offset + FRAME_OUT > len(self.chunks[0]):
            return None
        return source[0], source[1] + self.offset // FRAME_OUT

    @property
    def heard_ms(self) -> float:
        return self.heard / _SAMPLES_PER_MS


class Playout:
    """The utterances of one call. Not thread-safe; time is an argument.

    `capacity_s`: seconds of audio held at most; `push` past it raises `PlayoutFull`.
    `low_ms`: level of the utterance being spoken below which LOW is told, once each time it falls there.
    """

    def __init__(self, *, capacity_s: float = 60.0, low_ms: float = 1000.0) -> None:
        self._capacity = round(capacity_s * RATE_OUT)
        self._low = round(low_ms * _SAMPLES_PER_MS)
        self._queue: deque[_Utterance] = deque()
        self._open: dict[int, _Utterance] = {}
        self._buffered = 0
        self._newest: int | None = None
        """The highest generation ever opened or closed; a lower one that is not open is over."""
        self._ended: OrderedDict[int, float] = OrderedDict()
        self._fade: tuple[Pcm, Heard] | None = None
        self.tap: Callable[[Pcm, float], None] | None = None
        """Told of each frame that leaves, and when it sounds: when it was due, or is to be played by the other side."""
        self.untap: Callable[[float], None] | None = None
        """Told, by legs that send ahead, from when on nothing sounds of what `tap` was told."""
        self.source: Source | None = None
        """What the frame handed out last is of, where that is prepared."""
        self._sounding = False
        """The last frame handed out was of the utterance first in line."""

    @property
    def speaking(self) -> int | None:
        """The generation whose frames are being handed out, or that waits first in line."""
        return self._queue[0].generation if self._queue else None

    @property
    def buffered_ms(self) -> float:
        """Of all utterances together, not handed out yet."""
        return self._buffered / _SAMPLES_PER_MS

    @property
    def fading(self) -> bool:
        """The last thing cut was sounding: its fade is still to be handed out, and CUT to be told."""
        return self._fade is not None

    @property
    def idle(self) -> bool:
        """`next_frame` has nothing to hand out or to tell: no clock is needed until the next `push` or `finish`."""
        if self._fade is not None:
            return False
        if not self._queue:
            return True
        first = self._queue[0]
        return first.left < FRAME_OUT and not first.finished and (first.low or first.left >= self._low)

    def push(self, generation: int, pcm: Pcm, source: Source | None = None) -> bool:
        """Append 24 kHz samples to `generation` (opened by its first push). False when it was cut or finished.

        The array belongs to the playout from then on, which never writes to it. `source`: whole frames of something
        prepared. Raises `PlayoutFull`.
        """
        if pcm.dtype != np.int16 or pcm.ndim != 1:
            raise ValueError("PCM is one-dimensional int16")
        if self._buffered + len(pcm) > self._capacity:
            if self._known_over(generation):
                return False
            raise PlayoutFull(f"more than {self._capacity / RATE_OUT:g} s waiting to be said")
        utterance = self._get(generation)
        if utterance is None or utterance.finished:
            return False
        utterance.append(pcm, source)
        self._buffered += len(pcm)
        if utterance.left >= self._low:
            utterance.low = False
        return True

    def finish(self, generation: int) -> None:
        """Nothing more comes for `generation`. DONE follows even if nothing was ever pushed for it.

        Raises `PlayoutFull` as `push` does, for a generation that it would have to open.
        """
        utterance = self._get(generation)
        if utterance is not None:
            utterance.finished = True

    def cut(self, through: int | None = None) -> list[Heard]:
        """Stop every utterance not yet done; what was heard of each, in order. Idempotent.

        `through`: also close generations up to this one that were never opened, so that speech
        still on its way for them is dropped. What is heard of an utterance is what had left before
        the cut: the fade that follows is not counted, here or in `heard_ms`.
        """
        heard = []
        if self._queue and self._sounding:
            faded = _faded(self._queue[0])
            cut = Heard(self._queue[0].generation, self._queue[0].heard_ms)
            self._fade = None if faded is None else (faded, cut)
        for utterance in self._queue:
            heard.append(Heard(utterance.generation, utterance.heard_ms))
            self._remember(utterance)
        self._queue.clear()
        self._open.clear()
        self._buffered = 0
        self._sounding = False
        if through is not None and (self._newest is None or through > self._newest):
            self._newest = through
        return heard

    def heard_ms(self, generation: int) -> float:
        """Milliseconds of `generation` handed out so far (0 when unknown)."""
        utterance = self._open.get(generation)
        return utterance.heard_ms if utterance is not None else self._ended.get(generation, 0.0)

    def next_frame(self, now: float) -> tuple[Pcm | None, list[PlayoutEvent]]:
        """The next 20 ms (480 samples) or None when there is nothing to say; events since the last call."""
        events: list[PlayoutEvent] = []
        self.source = None
        if self._fade is not None:
            (frame, cut), self._fade = self._fade, None
            events.append(PlayoutEvent(PlayoutEventKind.CUT, cut.generation, cut.heard_ms, now))
            return frame, events
        while self._queue:
            first = self._queue[0]
            if first.left >= FRAME_OUT:
                self.source = first.source
                return self._hand_out(first, first.take(FRAME_OUT), FRAME_OUT, now, events), events
            if not first.finished:
                self._tell_low(first, now, events)
                break
            if first.left:
                size = first.left
                return self._hand_out(first, padded(first.take(size)), size, now, events), events
            self._end(first, now, events)
        self._sounding = False
        return None, events

    def _hand_out(self, first: _Utterance, frame: Pcm, size: int, now: float, events: list[PlayoutEvent]) -> Pcm:
        """Count a frame of which `size` samples are the utterance's, and tell what it brought about."""
        started = first.heard == 0
        first.heard += size
        self._buffered -= size
        self._sounding = True
        if started:
            events.append(PlayoutEvent(PlayoutEventKind.STARTED, first.generation, first.heard_ms, now))
        if not first.finished:
            self._tell_low(first, now, events)
        elif not first.left:
            self._end(first, now, events)
        return frame

    def _tell_low(self, first: _Utterance, now: float, events: list[PlayoutEvent]) -> None:
        if not first.low and first.left < self._low:
            first.low = True
            events.append(PlayoutEvent(PlayoutEventKind.LOW, first.generation, first.heard_ms, now))

    def _end(self, first: _Utterance, now: float, events: list[PlayoutEvent]) -> None:
        self._queue.popleft()
        del self._open[first.generation]
        self._remember(first)
        self._sounding = False
        events.append(PlayoutEvent(PlayoutEventKind.DONE, first.generation, first.heard_ms, now))

    def _remember(self, utterance: _Utterance) -> None:
        self._ended[utterance.generation] = utterance.heard_ms
        while len(self._ended) > _REMEMBERED:
            self._ended.popitem(last=False)

    def _known_over(self, generation: int) -> bool:
        utterance = self._open.get(generation)
        if utterance is not None:
            return utterance.finished
        return self._newest is not None and generation <= self._newest

    def _get(self, generation: int) -> _Utterance | None:
        """The open utterance, opened now if it is newer than all others; None when it is over."""
        utterance = self._open.get(generation)
        if utterance is not None:
            return utterance
        if self._newest is not None and generation <= self._newest:
            return None
        if len(self._queue) >= _MAX_UTTERANCES:
            raise PlayoutFull(f"more than {_MAX_UTTERANCES} utterances waiting to be said")
        utterance = _Utterance(generation)
        self._queue.append(utterance)
        self._open[generation] = utterance
        self._newest = generation
        return utterance


def _faded(utterance: _Utterance) -> Pcm | None:
    """A frame whose first 10 ms bring the utterance to zero from where it was cut; None when nothing is left of it."""
    size = min(_FADE, utterance.left)
    if not size:
        return None
    frame = np.zeros(FRAME_OUT, np.int16)
    frame[:size] = utterance.take(size) * np.linspace(1.0, 0.0, size, endpoint=False)
    return frame


def padded(pcm: Pcm) -> Pcm:
    """A frame of at most 480 samples, the last of an utterance, filled up with silence, with no step where its sound
    ends."""
    frame = np.zeros(FRAME_OUT, np.int16)
    size = len(pcm)
    frame[:size] = pcm
    if abs(int(pcm[-1])) > _LOUD:
        fade = min(_END_FADE, size)
        frame[size - fade : size] = pcm[size - fade :] * np.linspace(1.0, 0.0, fade, endpoint=False)
    return frame
