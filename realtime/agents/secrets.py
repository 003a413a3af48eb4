"""Secrets that a tool uses stay with it: whatever it gives back is read for them first."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote, quote_plus

SHORTEST = 4
"""Characters; anything shorter would be found everywhere."""


class Redaction:
    def __init__(self, secrets: Iterable[str]) -> None:
        forms: set[str] = set()
        for secret in secrets:
            # The word behind `Bearer ` is as secret as the whole header.
            for part in {secret, *secret.split()}:
                forms |= {part, quote(part, safe=""), quote_plus(part)} if len(part) >= SHORTEST else set()
        self._forms = sorted(forms - {"Bearer", "Basic", "Token"}, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, "[secret]")
        return text
