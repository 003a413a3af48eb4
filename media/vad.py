"""Voice activity detection for every call of the process: one Silero model, small batches, a cheap gate.

`Vad` is process-wide; `Vad.detector` gives one call its `SpeechDetector`, which takes the call's
audio and reports `SpeechStarted` and `SpeechStopped`. Windows of all calls that became ready in the
same turn of the event loop run in one batch of at most 32.
"""

from __future__ import annotations

from collections.abc import Callable

from media.audio import Pcm
from media.endpoint import EndpointSettings, SpeechEvent


class Vad:
    """`load()` once at start, then one `detector` per call."""

    def load(self) -> None:
        raise NotImplementedError

    def detector(self, settings: EndpointSettings, on_event: Callable[[SpeechEvent], None]) -> SpeechDetector:
        raise NotImplementedError


class SpeechDetector:
    """The detector of one call. `on_event` is called on the event loop, soon after the audio that caused it."""

    @property
    def position_ms(self) -> float:
        """Media time: all audio ever pushed."""
        raise NotImplementedError

    def push(self, pcm: Pcm, arrived_at: float) -> None:
        """16 kHz samples, any length; `arrived_at` monotonic seconds of its last sample's packet."""
        raise NotImplementedError

    def configure(self, settings: EndpointSettings) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        """Forget speech under way (the buffer was cleared); media time goes on."""
        raise NotImplementedError

    def close(self) -> None:
        raise NotImplementedError
