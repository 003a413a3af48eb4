"""Opens audio and image files from strangers, in a child process with limits: one child a file.

What a file is, its first bytes say, never its name or the type it came with. A file that needs too
much time or memory ends its child and nothing else. At most `AT_ONCE` children run at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np

from media.audio import Pcm
from realtime.adapters.decoding_main import THUMBNAIL

MAX_SECONDS = 900.0
"""Seconds of audio in one file."""
MAX_PIXELS = 24_000_000
"""Of an image that is decoded here, 6000 by 4000: 96 MB with transparency."""
WALL_S = {"audio": 20.0, "image": 5.0}
AT_ONCE = 2
WAITING = 32

_AUDIO = (
    (b"OggS", 0, "ogg"), (b"fLaC", 0, "flac"), (b"ID3", 0, "mp3"), (b"\x1aE\xdf\xa3", 0, "matroska"),
    (b"ftyp", 4, "mov"), (b"#!AMR", 0, "amr"), (b"caff", 0, "caf"), (b"FORM", 0, "aiff"),
)  # fmt: skip
_IMAGES = {"image/png": "png_pipe", "image/jpeg": "jpeg_pipe", "image/webp": "webp_pipe", "image/gif": "gif"}

MIME = {
    "wav": "audio/wav", "ogg": "audio/ogg", "flac": "audio/flac", "mp3": "audio/mpeg", "matroska": "audio/webm",
    "mov": "audio/mp4", "amr": "audio/amr", "caf": "audio/x-caf", "aiff": "audio/aiff", "aac": "audio/aac",
}  # fmt: skip


class FileRefused(Exception):
    """The file cannot be used; `code` is a short name. `too_large`: it is readable, but more than is taken."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.too_large = code in ("audio_too_long", "image_too_large", "file_too_complex")


@dataclass(frozen=True, slots=True)
class Picture:
    """`pixels`: the picture shrunk to 32 by 32, RGB."""

    width: int
    height: int
    pixels: np.ndarray


def audio_format(data: bytes) -> str | None:
    """The container by its first bytes, in FFmpeg's words; None for anything that is not taken as audio."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "wav"
    for magic, at, name in _AUDIO:
        if data[at : at + len(magic)] == magic:
            return name
    if len(data) > 2 and data[0] == 0xFF and data[1] & 0xE0 == 0xE0:
        return "aac" if data[1] & 0xF6 == 0xF0 else "mp3"
    return None


def image_type(data: bytes) -> str | None:
    """The MIME type by the first bytes, of the kinds that vendors take; None for anything else."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "image/gif"
    return None


class Decoder:
    """The children of one process of ours."""

    def __init__(self, *, at_once: int = AT_ONCE, waiting: int = WAITING) -> None:
        self._places = asyncio.Semaphore(at_once)
        self._waiting = 0
        self._most_waiting = waiting

    async def audio(self, data: bytes, *, max_seconds: float = MAX_SECONDS) -> Pcm:
        """16 kHz mono samples. Raises `FileRefused`."""
        form = audio_format(data)
        if form is None:
            raise FileRefused(
                "unknown_format", "this is no audio file of a known kind (wav, mp3, ogg, flac, m4a, webm)"
            )
        _, raw = await self._child("audio", form, max_seconds, data)
        return np.frombuffer(raw, np.int16)

    async def image(self, data: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
        """Raises `FileRefused`."""
        form = _IMAGES.get(image_type(data) or "")
        if form is None:
            raise FileRefused("unknown_format", "this is no image of a known kind (png, jpeg, webp, gif)")
        head, raw = await self._child("image", form, max_pixels, data)
        pixels = np.frombuffer(raw, np.uint8).reshape(THUMBNAIL, THUMBNAIL, 3)
        return Picture(int(head["width"]), int(head["height"]), pixels)

    async def _child(self, what: str, form: str, limit: float, data: bytes) -> tuple[dict[str, Any], bytes]:
        if self._waiting >= self._most_waiting:
            raise FileRefused("busy", "too many files are being opened at the moment")
        self._waiting += 1
        try:
            async with self._places:
                return await self._run(what, form, limit, data)
        finally:
            self._waiting -= 1

    async def _run(self, what: str, form: str, limit: float, data: bytes) -> tuple[dict[str, Any], bytes]:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-m", "realtime.adapters.decoding_main", what, form, str(limit),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with asyncio.timeout(WALL_S[what]):
                out, _ = await child.communicate(data)
        except TimeoutError:
            raise FileRefused("file_too_complex", f"opening the {what} takes too long") from None
        finally:
            if child.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()
                await child.wait()
        line, newline, rest = out.partition(b"\n")
        if not newline:
            raise FileRefused("file_too_complex", f"opening the {what} takes too much time or memory")
        head = json.loads(line)
        if "error" in head:
            raise FileRefused(head["error"], head["message"])
        return head, rest
