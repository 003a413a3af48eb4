"""What OpenAI's voice names mean at the embedded voices: a documented table, no model behind it.

| name | espeak-ng | pitch | flite |
|---|---|---|---|
| alloy, default | en-us, f2 | 45 | slt |
| ash | en-us, m3 | 45 | rms |
| ballad | en-gb, m2 | 50 | awb |
| cedar | en-us, m1 | 35 | rms |
| coral | en-us, f3 | 55 | slt |
| echo | en-us, m4 | 50 | rms |
| fable | en-gb, m4 | 58 | awb |
| marin | en-us, f2 | 55 | slt |
| nova | en-us, f3 | 65 | slt |
| onyx | en-us, m7 | 25 | rms |
| sage | en-us, f4 | 45 | slt |
| shimmer | en-us, f4 | 62 | slt |
| verse | en-us, m6 | 50 | kal |

Another language than English keeps the variant (`de+f2`); flite speaks English alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from realtime.adapters.base import EngineError


@dataclass(frozen=True, slots=True)
class Timbre:
    """`accent`: espeak's voice for English; `variant`: its timbre; `pitch`: 0 to 99; `flite`: flite's voice."""

    accent: str
    variant: str
    pitch: int
    flite: str


TIMBRES: Final = {
    "alloy": Timbre("en-us", "f2", 45, "slt"),
    "ash": Timbre("en-us", "m3", 45, "rms"),
    "ballad": Timbre("en-gb", "m2", 50, "awb"),
    "cedar": Timbre("en-us", "m1", 35, "rms"),
    "coral": Timbre("en-us", "f3", 55, "slt"),
    "echo": Timbre("en-us", "m4", 50, "rms"),
    "fable": Timbre("en-gb", "m4", 58, "awb"),
    "marin": Timbre("en-us", "f2", 55, "slt"),
    "nova": Timbre("en-us", "f3", 65, "slt"),
    "onyx": Timbre("en-us", "m7", 25, "rms"),
    "sage": Timbre("en-us", "f4", 45, "slt"),
    "shimmer": Timbre("en-us", "f4", 62, "slt"),
    "verse": Timbre("en-us", "m6", 50, "kal"),
}
DEFAULT: Final = "alloy"
NAMES: Final = tuple(TIMBRES)

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z0-9]{1,8}){0,2}")
_ESPEAK_NAMES: Final = {"zh": "cmn", "no": "nb", "iw": "he", "in": "id"}
"""Languages that espeak-ng knows by another name."""


def timbre(voice: str | None) -> Timbre:
    """Raises `EngineError` with code `unknown_voice`."""
    found = TIMBRES.get((voice or DEFAULT).strip().lower())
    if found is None:
        known = ", ".join(NAMES)
        raise EngineError(
            f"there is no voice {voice!r:.80} here, only {known}",
            code="unknown_voice",
            engine="embedded",
            retryable=False,
        )
    return found


def espeak_voices(voice: Timbre, language: str | None) -> list[str]:
    """Names to try in order, best first; the last one is always there."""
    tag = (language or "").replace("_", "-").lower()
    fallback = f"{voice.accent}+{voice.variant}"
    if not _LANGUAGE.fullmatch(tag) or tag == "en":
        return [fallback]
    primary = tag.split("-")[0]
    names = [tag, _ESPEAK_NAMES.get(primary, primary)]
    return [*(f"{name}+{voice.variant}" for name in dict.fromkeys(names) if name != "en"), fallback]
