"""The bytes between the server and a worker process: length-prefixed binary frames over its pipes.

A frame is a kind, a stream number, a small JSON object and a body. Both ends share this module; it
does no I/O and imports nothing but the standard library, so that a worker starts quickly. Anything
that is not a frame raises `FrameError`: the pipe is then worth nothing and the worker is replaced.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Final

HEADER: Final = struct.Struct("<IBIH")
"""Bytes that follow, kind, stream, bytes of JSON among those that follow."""

MAX_FRAME: Final = 1 << 20
"""Bytes: ten seconds of 48 kHz audio; no engine sends that much at once."""


class FrameError(ValueError):
    """The bytes are not a frame of ours."""


class Kind(IntEnum):
    """To the worker below 16, from it above; an end ignores streams that it no longer knows."""

    OPEN = 1
    """To the worker: a stream begins; JSON is the engine's own, and `credit` items may come."""
    DATA = 2
    FINISH = 3
    """No more data; the result is due."""
    CANCEL = 4
    CREDIT = 5
    """`n` more items may come."""
    PING = 6
    """Any frame answers it; sent so that a stuck worker is noticed."""
    READY = 16
    """From the worker: loaded; JSON says what was loaded."""
    ITEM = 17
    END = 18
    FAILED = 19
    """The stream (0: the whole worker) failed with `code` and `message`."""
    TAKEN = 20
    """`n` bytes of data were worked off."""
    PONG = 21


@dataclass(frozen=True, slots=True)
class Frame:
    kind: Kind
    stream: int = 0
    head: dict[str, Any] = field(default_factory=dict)
    body: bytes = b""

    def serialize(self) -> bytes:
        head = json.dumps(self.head, separators=(",", ":")).encode() if self.head else b""
        return HEADER.pack(len(head) + len(self.body), self.kind, self.stream, len(head)) + head + self.body


def following(header: bytes) -> int:
    """How many bytes follow `header`."""
    length, _, _, head = HEADER.unpack(header)
    if length > MAX_FRAME or head > length:
        raise FrameError(f"a frame of {length} bytes")
    return int(length)


def parse(header: bytes, rest: bytes) -> Frame:
    length, kind, stream, head = HEADER.unpack(header)
    if len(rest) != length or head > length:
        raise FrameError("the frame is not as long as it says")
    try:
        fields = json.loads(rest[:head]) if head else {}
        if not isinstance(fields, dict):
            raise FrameError("the frame's JSON is not an object")
        return Frame(Kind(kind), stream, fields, rest[head:])
    except ValueError as error:
        raise FrameError(str(error)) from error
