"""One finding of `realtime doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Check:
    """`advice`: what to do, for everything that is not ok."""

    name: str
    state: Literal["ok", "warn", "fail"]
    detail: str
    advice: str | None = None
