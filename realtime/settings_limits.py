"""`[limits]` of the settings file: what one process takes on, and what it takes from one address or key."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class LimitSettings(BaseModel):
    """`[limits]`: what one process takes on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    calls: Annotated[int, Field(ge=1)] = 50
    calls_per_secret: Annotated[int, Field(ge=1)] = 10
    """Calls under way that one reusable secret (`ek_...`) may have opened."""
    loop_lag_ms: Annotated[float, Field(gt=0)] = 20.0
    """While the 99th percentile of the event loop's lag over 10 s is more, no call is admitted."""
    connect_seconds: Annotated[float, Field(gt=0)] = 15.0
    inactivity_seconds: Annotated[float, Field(gt=0)] = 15.0
    audio_ahead_seconds: Annotated[float, Field(gt=0)] = 600.0
    """How far a WebSocket's audio may be ahead of the clock: a recording may come whole."""
    retain_transcript_seconds: Annotated[int, Field(ge=0)] = 3600
    """How long the transcript of an ended call can be fetched; 0 keeps none."""
    kept_speech_bytes: Annotated[int, Field(ge=0)] = 32 << 20
    """Memory for speech that is the same in many calls, as greetings are; 0 keeps none."""
    connections_per_address: Annotated[int, Field(ge=1)] | None = None
    """Connections that one address may hold; default: 256, or twice `calls` where that is more."""
    tokens_per_minute: Annotated[int, Field(ge=1)] = 600
    """Tokens minted per API key."""
    requests_per_minute: Annotated[int, Field(ge=1)] = 6000
    """One-shot requests per API key."""
    spend_usd_per_day: Annotated[float, Field(gt=0)] | None = None
    """What the one-shot requests of one API key may cost in a day (UTC)."""
    file_seconds: Annotated[int, Field(ge=60, le=30 * 86_400)] = 86_400
    """How long made speech and images can be fetched."""
    files_bytes: Annotated[int, Field(ge=1 << 20)] = 4 << 30
    """What such files may take in the data folder, all together."""
    fetch_seconds: Annotated[float, Field(gt=0, le=120)] = 20.0
    """How long the server waits for a URL in a request."""

    @property
    def address_connections(self) -> int:
        return self.connections_per_address or max(256, 2 * self.calls)
