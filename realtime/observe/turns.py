"""One record a turn: event, log line, metric and trace say the same numbers.

All durations are milliseconds, measured with the monotonic clock; `None` means that the step did
not happen in this turn (a greeting has no end of speech, a text answer no first packet).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class TurnRecord:
    """`*_at` are monotonic seconds and stay inside; everything else is reported."""

    item_id: str | None = None
    response_id: str | None = None
    status: str = "completed"
    ended_at: float | None = None
    """End of the caller's last voiced frame, when its packet arrived."""
    endpoint_at: float | None = None
    transcript_at: float | None = None
    first_token_at: float | None = None
    first_audio_at: float | None = None
    first_packet_at: float | None = None
    barge_in_ms: float | None = None
    heard_ms: float | None = None
    cost_usd: float | None = None
    """Spent since the turn before was over; None when a price is not known."""
    engines: dict[str, str] = field(default_factory=dict)

    def metrics(self, wall_offset: float) -> dict[str, Any]:
        """The public record. `wall_offset`: wall clock minus monotonic clock, in seconds.

        `endpoint_ms`, `transcript_ms`, … are each step's own share, so that they add up to
        `voice_to_voice_ms`, the end of the caller's last voiced frame to the first packet of the answer.
        """
        steps: dict[str, float | None] = {}
        before = self.ended_at
        for name, at in (
            ("endpoint_ms", self.endpoint_at),
            ("transcript_ms", self.transcript_at),
            ("chat_first_token_ms", self.first_token_at),
            ("speech_first_audio_ms", self.first_audio_at),
            ("first_packet_ms", self.first_packet_at),
        ):
            steps[name] = None if at is None or before is None else _ms(before, at)
            before = at if at is not None else before
        return {
            "speech_ended_at": None if self.ended_at is None else round(self.ended_at + wall_offset, 3),
            **steps,
            "voice_to_voice_ms": None
            if self.ended_at is None or self.first_packet_at is None
            else _ms(self.ended_at, self.first_packet_at),
            "barge_in_ms": None if self.barge_in_ms is None else round(self.barge_in_ms, 1),
            "heard_ms": None if self.heard_ms is None else round(self.heard_ms, 1),
            "cost_usd": self.cost_usd,
            "engines": dict(self.engines),
        }


def _ms(start: float, end: float) -> float:
    return round((end - start) * 1000, 1) + 0.0  # which makes 0.0 of -0.0, two moments the wrong way round by a hair
