"""What `{{name}}` stands for in an agent's words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MAX_VALUE = 4000
"""Characters of one value that is put into an agent's words."""

_PLACE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_-]{0,63})\s*\}\}")


def fill(text: str, variables: Mapping[str, Any]) -> str:
    """`text` with the values of the variables it names. Names without a value stay as they are."""
    return _PLACE.sub(lambda place: str(variables.get(place[1], place[0]))[:MAX_VALUE], text)
