"""Secrets that a tool uses stay with it: whatever it gives back is read for them first, in every usual writing."""

from __future__ import annotations

import base64
import binascii
import html
import json
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

SHORTEST = 4
"""Characters; anything shorter would be found everywhere."""

_SCHEMES = {"Bearer", "Basic", "Token", "Digest", "ApiKey"}
"""Words before a credential that are no secrets."""


class Redaction:
    def __init__(self, secrets: Iterable[str]) -> None:
        forms = {form for secret in secrets for part in _parts(secret) for form in _forms(part)}
        self._forms = sorted((form for form in forms if len(form) >= SHORTEST), key=len, reverse=True)

    @property
    def longest(self) -> int:
        """Characters of the longest writing of a secret."""
        return len(self._forms[0]) if self._forms else 0

    def __call__(self, text: str) -> str:
        for form in self._forms:
            text = text.replace(form, "[secret]")
        return text


def _parts(secret: str) -> Iterator[str]:
    """The word behind `Bearer` is as secret as the whole header, and so is what `Basic` wraps."""
    yield secret
    for word in secret.split():
        if word not in _SCHEMES and len(word) >= SHORTEST:
            yield word
    scheme, _, packed = secret.partition(" ")
    if scheme.lower() == "basic":
        try:
            credentials = base64.b64decode(packed, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return
        yield credentials
        password = credentials.partition(":")[2]
        if len(password) >= SHORTEST:
            yield password


def _forms(part: str) -> Iterator[str]:
    """As it is, and as URLs, JSON, HTML, Base64 and hexadecimal have it."""
    yield part
    for quoted in (quote(part, safe=""), quote_plus(part), quote(part)):
        yield from (quoted, _lower_escapes(quoted))
    for written in (json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1]):
        yield from (written, written.replace("/", "\\/"))
    yield html.escape(part)
    raw = part.encode()
    for encoded in (base64.b64encode(raw), base64.urlsafe_b64encode(raw)):
        yield encoded.decode().rstrip("=")
    yield from (raw.hex(), raw.hex().upper())


def _lower_escapes(quoted: str) -> str:
    """`%2f` for `%2F`."""
    head, *rest = quoted.split("%")
    return "%".join([head, *(piece[:2].lower() + piece[2:] for piece in rest)])
