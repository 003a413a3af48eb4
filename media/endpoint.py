"""When speech began and when it ended, from voice probabilities and levels. Sans-I/O.

Silence is counted in media time from the last voiced frame, not from when the detector noticed:
the detector's lag costs nothing as long as it is shorter than the silence asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


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
