"""Reads hostile SDP text line by line into sections, and decides nothing about them (RFC 8866 section 5).

Every line must be `x=...`; only m-lines and attributes are kept. Bounded in bytes, lines, m-lines and
formats. Whatever is wrong raises `OfferError` and nothing else. Sans-I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_MEDIA_LINES = 8
MAX_FORMATS = 64
"""Payload types of one m-line; a browser's video line has about 50."""
MAX_LINES = 2000
"""A browser's offer with audio, video and data has about 200."""
MAX_LINE_CHARS = 4096

TOKEN = re.compile(r"[!-~]{1,64}")
_LINE = re.compile(r"[a-z]=")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class OfferError(Exception):
    """What the caller sent cannot be used; `status` is the HTTP status it deserves (400, 413, 415, 422)."""

    def __init__(self, code: str, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status


@dataclass(slots=True)
class Section:
    """The session part (kind empty) or one m-line with its attributes, in the order they came."""

    kind: str = ""
    port: int = 0
    protocol: str = ""
    formats: list[str] = field(default_factory=list)
    attributes: list[tuple[str, str]] = field(default_factory=list)

    def first(self, name: str) -> str | None:
        return next(self.all(name), None)

    def all(self, name: str) -> Iterator[str]:
        return (value for attribute, value in self.attributes if attribute == name)

    def has(self, name: str) -> bool:
        return self.first(name) is not None


def read_text(body: bytes | str, limit: int, what: str) -> str:
    size = len(body) if isinstance(body, bytes) else len(body.encode("utf-8", "surrogatepass"))
    if size > limit:
        raise OfferError("too_large", f"{what} has {size} bytes; at most {limit} are taken.", 413)
    if isinstance(body, str):
        return body
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise OfferError("not_sdp", f"{what} is not SDP: it is not UTF-8 text.", 400) from None


def read_sections(text: str, what: str) -> list[Section]:
    """Split into the session part and the m-lines; every line must be `x=...` (LF or CRLF)."""
    sections = [Section()]
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.rstrip("\r \t")
        if not line:
            continue
        if number > MAX_LINES:
            raise OfferError("too_complex", f"{what} has over {MAX_LINES} lines.")
        if len(line) > MAX_LINE_CHARS:
            raise OfferError("too_complex", f"Line {number} of {what} has over {MAX_LINE_CHARS} characters.")
        if not _LINE.match(line) or _CONTROL.search(line):
            raise OfferError("malformed_sdp", f"Line {number} of {what} is not a line of SDP.", 400)
        if line.startswith("m="):
            sections.append(_media_line(line, number, what))
        elif line.startswith("a="):
            name, _, value = line[2:].partition(":")
            sections[-1].attributes.append((name, value.strip()))
    if len(sections) - 1 > MAX_MEDIA_LINES:
        raise OfferError("too_complex", f"{what} has {len(sections) - 1} m-lines; at most {MAX_MEDIA_LINES} are taken.")
    return sections


def _media_line(line: str, number: int, what: str) -> Section:
    kind, port, protocol, *formats = line[2:].split() + [""] * 3
    formats = [text for text in formats if text]
    port = port.partition("/")[0]
    tokens = (kind, protocol, *formats)
    if not (formats and all(map(TOKEN.fullmatch, tokens)) and port.isascii() and port.isdigit() and len(port) <= 5):
        raise OfferError("malformed_sdp", f"Line {number} of {what} is not an m-line.", 400)
    if len(formats) > MAX_FORMATS:
        raise OfferError("too_complex", f"Line {number} of {what} lists over {MAX_FORMATS} payload types.")
    return Section(kind, int(port), protocol, formats)


def read_int(text: str, low: int, high: int) -> int | None:
    if text.isascii() and text.isdigit() and len(text) <= 10 and low <= int(text) <= high:
        return int(text)
    return None
