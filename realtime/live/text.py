"""Text as every encoder takes it: a developer's code and some vendors give halves of characters."""

from __future__ import annotations


def repaired(text: str) -> str:
    """`text` with its surrogates joined to the characters that they stand for; one alone becomes U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
