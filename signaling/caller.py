"""Who is at the other end of a call, as far as the wire says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Caller:
    """`kind`: what the call is held over. The rest is known of telephone calls.

    `number`, `dialled`: as the carrier writes them, usually E.164 (`+15551234567`); personal data, never
    logged in full. `carrier`: the name of the `[telephony.NAME]` it came through. `parameters`: what the
    carrier or its dial plan adds, untrusted text.
    """

    kind: Literal["webrtc", "websocket", "phone"] = "webrtc"
    number: str | None = None
    dialled: str | None = None
    carrier: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)


OVER_WEBRTC = Caller()
