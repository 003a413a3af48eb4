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

from dataclasses import dataclass
from enum import Enum

from media.audio import Pcm


class PlayoutEventKind(Enum):
    STARTED = "started"
    """The first frame of the utterance was handed out."""
    LOW = "low"
    """Less than `low_ms` is left and the utterance is not finished: more may be pushed."""
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


class Playout:
    """The utterances of one call. Not thread-safe; time is an argument.

    `capacity_s`: seconds of audio held at most; `push` past it raises `PlayoutFull`.
    """

    def __init__(self, *, capacity_s: float = 60.0, low_ms: float = 1000.0) -> None:
        raise NotImplementedError

    @property
    def speaking(self) -> int | None:
        """The generation whose frames are being handed out, or that waits first in line."""
        raise NotImplementedError

    @property
    def buffered_ms(self) -> float:
        raise NotImplementedError

    def push(self, generation: int, pcm: Pcm) -> bool:
        """Append 24 kHz samples to `generation` (opened by its first push). False when it was cut or finished."""
        raise NotImplementedError

    def finish(self, generation: int) -> None:
        """Nothing more comes for `generation`. DONE follows even if nothing was ever pushed for it."""
        raise NotImplementedError

    def cut(self) -> list[Heard]:
        """Stop every utterance not yet done; what was heard of each, in order. Idempotent."""
        raise NotImplementedError

    def heard_ms(self, generation: int) -> float:
        """Milliseconds of `generation` handed out so far (0 when unknown)."""
        raise NotImplementedError

    def next_frame(self, now: float) -> tuple[Pcm | None, list[PlayoutEvent]]:
        """The next 20 ms (480 samples) or None when there is nothing to say; events since the last call."""
        raise NotImplementedError
