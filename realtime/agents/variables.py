"""What `{{name}}` stands for in an agent's words."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any

from realtime.agents.blame import where
from realtime.live.text import repaired

log = logging.getLogger("realtime.agents")

MAX_VALUE = 4000
"""Characters of one value that is put into an agent's words."""

_PLACE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_-]{0,63})\s*\}\}")


def fill(text: str, variables: Mapping[str, Any]) -> str:
    """`text` with the values of the variables it names. Names without a value that can be said stay as they are."""
    return repaired(_PLACE.sub(lambda place: _said(variables.get(place[1], place[0]), place[0]), text))


def _said(value: object, else_: str) -> str:
    try:
        return str(value)[:MAX_VALUE]
    except Exception as error:  # the developer's own `__str__`
        log.error("a value for %s cannot be said: %s at %s", else_, type(error).__name__, where(error))
        return else_
