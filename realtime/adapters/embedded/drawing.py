"""The demo image engine: a drawn placeholder that says what it is and what was asked for.

Colours follow from the prompt, so that different prompts look different and the same one the same. It
must never pass itself off as a generated image: PLACEHOLDER stands across it. Drawn with NumPy, written
as PNG; off the event loop, since a large one takes some ten milliseconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import struct
import textwrap
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import numpy as np

from realtime.adapters.base import EngineError, EngineInfo, Image

SIZE: Final = (1024, 1024)
MAX_SIDE: Final = 2048
MIN_SIDE: Final = 16

_GLYPHS: Final = {
    "A": "0E11111F111111", "B": "1E11111E11111E", "C": "0E11101010110E", "D": "1E11111111111E",
    "E": "1F10101E10101F", "F": "1F10101E101010", "G": "0E11101711110F", "H": "1111111F111111",
    "I": "0E04040404040E", "J": "0702020202120C", "K": "11121418141211", "L": "1010101010101F",
    "M": "111B1515111111", "N": "11191513111111", "O": "0E11111111110E", "P": "1E11111E101010",
    "Q": "0E11111115120D", "R": "1E11111E141211", "S": "0F10100E01011E", "T": "1F040404040404",
    "U": "1111111111110E", "V": "11111111110A04", "W": "1111111515150A", "X": "11110A040A1111",
    "Y": "11110A04040404", "Z": "1F01020408101F", "0": "0E11131519110E", "1": "040C040404040E",
    "2": "0E11010204081F", "3": "1F02040201110E", "4": "02060A121F0202", "5": "1F101E0101110E",
    "6": "0608101E11110E", "7": "1F010204080808", "8": "0E11110E11110E", "9": "0E11110F01020C",
    ".": "00000000000C0C", ",": "000000000C0408", "-": "0000001F000000", "'": "04040800000000",
    "?": "0E110102040004", "!": "04040404040004", ":": "000C0C000C0C00",
}  # fmt: skip
"""Five by seven dots, a row a byte."""


class Placeholder:
    """An `ImageGenerator`."""

    info = EngineInfo(
        name="embedded",
        kind="image",
        vendor="embedded",
        model="placeholder",
        quality="demo: draws a placeholder with the prompt on it",
    )

    async def start(self) -> None:
        """Nothing to load."""

    async def close(self) -> None:
        """Nothing to end."""

    @asynccontextmanager
    async def generate(
        self, prompt: str, *, size: tuple[int, int] | None = None, count: int = 1
    ) -> AsyncIterator[AsyncIterator[Image]]:
        width, height = size or SIZE
        if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
            text = f"the embedded engine draws {MIN_SIDE} to {MAX_SIDE} pixels a side, not {width}x{height}"
            raise EngineError(text, code="bad_request", engine="embedded", retryable=False)
        yield self._images(prompt, width, height, count)

    async def _images(self, prompt: str, width: int, height: int, count: int) -> AsyncIterator[Image]:
        for number in range(count):
            data = await asyncio.to_thread(placeholder, prompt, width, height, number)
            yield Image(data, "image/png")


def placeholder(prompt: str, width: int, height: int, number: int = 0) -> bytes:
    """The PNG file."""
    seed = hashlib.blake2b(f"{number} {prompt}".encode("utf-8", "replace"), digest_size=6).digest()
    top, bottom = (np.array([64 + byte // 2 for byte in seed[at : at + 3]], float) for at in (0, 3))
    slope = np.linspace(0.0, 1.0, height)[:, None, None]
    picture = np.broadcast_to(top * (1 - slope) + bottom * slope, (height, width, 3)).astype(np.uint8)
    label = "PLACEHOLDER"
    wide = max(1, width // (6 * (len(label) + 2)))
    _write(picture, label, height // 3, wide)
    unit = max(1, wide // 2)
    columns = max(4, width // (6 * unit) - 4)
    for row, line in enumerate(textwrap.wrap(prompt[:400].upper(), columns)[:8]):
        _write(picture, line, height // 2 + row * 10 * unit, unit)
    return png(picture)


def _write(picture: np.ndarray, text: str, top: int, unit: int) -> None:
    """White letters, centred; what has no letter stays blank, what does not fit is cut."""
    dots = np.zeros((7, 6 * len(text)), bool)
    for place, letter in enumerate(text):
        rows = bytes.fromhex(_GLYPHS.get(letter, "00" * 7))
        for row, bits in enumerate(rows):
            for column in range(5):
                dots[row, 6 * place + column] = bool(bits >> (4 - column) & 1)
    big = np.kron(dots, np.ones((unit, unit), bool))
    left = max(0, (picture.shape[1] - big.shape[1]) // 2)
    area = picture[top : top + big.shape[0], left : left + big.shape[1]]
    area[big[: area.shape[0], : area.shape[1]]] = 255


def png(picture: np.ndarray) -> bytes:
    """8-bit RGB, height by width by 3, as a PNG file (ISO/IEC 15948)."""
    height, width, _ = picture.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # a filter byte, then the row
    rows[:, 1:] = picture.reshape(height, 3 * width)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(rows.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", data) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
