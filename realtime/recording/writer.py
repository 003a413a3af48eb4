"""Writes recordings, in a process of its own: blocks of both sides in, Ogg Opus out (RFC 7845), caller left, bot right.

Pages are written as they fill, a second at a time, so that a process that dies leaves all but the last second.
A recording that is taken up again is a further stream in the same file, as Ogg allows.
"""

from __future__ import annotations

import errno
import os
import struct
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import av
import numpy as np

from media.audio import RATE_IN, RATE_OUT, Pcm
from media.resample import BlockResampler
from realtime.adapters.base import EngineError
from realtime.adapters.embedded.worker_main import Output
from realtime.recording.tracks import Block

HEAD: Final = struct.Struct("<II")
"""Before each block: milliseconds of silence that stand for lost blocks, milliseconds of the block."""

BIT_RATE: Final = 64_000
"""For two voices that seldom speak at once; silence costs next to nothing."""

NICE: Final = 10
"""Calls go first where they share a core with this: a recording may be a second late, a packet may not."""

_OPTIONS: Final = {"page_duration": "1000000", "flush_packets": "1"}
"""Pages of a second, written at once."""
_SILENCE_MS: Final = 1000
_IN, _OUT = RATE_IN // 1000, RATE_OUT // 1000


def pack(block: Block, lost_ms: int = 0) -> bytes:
    return HEAD.pack(lost_ms, block.ms) + block.caller.tobytes() + block.bot.tobytes()


class OggOpus:
    """One file being written. Stereo at 24 kHz."""

    def __init__(self, path: str) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._file = os.fdopen(descriptor, "wb", buffering=0)
        self._container = av.open(self._file, "w", format="ogg", options=_OPTIONS)
        self._stream = self._container.add_stream("libopus", rate=RATE_OUT, layout="stereo")
        self._stream.bit_rate = BIT_RATE
        self._stream.options = {"application": "voip", "compression_level": "0"}
        self._at = 0

    def write(self, left: Pcm, right: Pcm) -> None:
        """24 kHz samples, as many of each."""
        frame = av.AudioFrame.from_ndarray(np.stack((left, right), axis=1).reshape(1, -1), "s16", "stereo")
        frame.sample_rate, frame.pts = RATE_OUT, self._at
        self._at += len(left)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        try:
            self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()
            self._file.close()


def duration_ms(path: str) -> int:
    """How much is in a file, complete or not."""
    try:
        with av.open(path) as container:
            packets = [packet for packet in container.demux(audio=0) if packet.size]
            return round(sum((packet.duration or 0) * packet.time_base for packet in packets) * 1000)
    except av.FFmpegError:
        return 0  # not even its head was written


class Recording:
    """A `Job`: one call. `at_ms`: where on the timeline what comes first belongs; before it is what the file has."""

    def __init__(self, path: str, at_ms: int, out: Output) -> None:
        self._out = out
        self._blocks: deque[bytes] = deque()
        self._finished = False
        self._resampler = BlockResampler(RATE_IN, RATE_OUT)
        self._rest: Pcm = np.zeros(0, np.int16)
        self._ogg: OggOpus | None = None
        self._lost_ms = 0
        with _told():
            if at_ms and os.path.exists(path):
                self._lost_ms = max(0, at_ms - duration_ms(path))
            self._ogg = OggOpus(path)
            self._silence(self._lost_ms)

    def data(self, payload: bytes) -> None:
        self._blocks.append(payload)

    def finish(self) -> None:
        self._finished = True

    def step(self) -> bool:
        if self._blocks:
            payload = self._blocks.popleft()
            with _told():
                self._write(payload)
            self._out.taken(len(payload))
            return bool(self._blocks) or self._finished
        if self._finished:
            with _told():
                self._close()
            self._out.item({"lost_ms": self._lost_ms})
            self._out.end()
        return False

    def close(self) -> None:
        if self._ogg is not None:
            with _told():
                self._close()

    def _write(self, payload: bytes) -> None:
        lost_ms, ms = HEAD.unpack_from(payload)
        self._silence(lost_ms)
        middle = HEAD.size + ms * _IN * 2
        self._put(
            np.frombuffer(payload, np.int16, ms * _IN, HEAD.size), np.frombuffer(payload, np.int16, ms * _OUT, middle)
        )

    def _silence(self, ms: int) -> None:
        while ms > 0:
            some = min(ms, _SILENCE_MS)
            self._put(np.zeros(some * _IN, np.int16), np.zeros(some * _OUT, np.int16))
            ms -= some

    def _put(self, caller: Pcm, bot: Pcm) -> None:
        assert self._ogg is not None
        left = np.concatenate((self._rest, self._resampler.push(caller)))
        if len(left) < len(bot):  # the filter's delay: 2 ms, once
            left = np.concatenate((np.zeros(len(bot) - len(left), np.int16), left))
        self._rest = left[len(bot) :]
        self._ogg.write(left[: len(bot)], bot)

    def _close(self) -> None:
        ogg, self._ogg = self._ogg, None
        if ogg is not None:
            ogg.close()


class _told:
    """What the file system refuses has a code."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            code = "disk_full" if full else "storage_failed"
            raise EngineError(error.strerror or str(error), code=code) from error


class Writer:
    """An `Engine` of `worker_main`."""

    def describe(self) -> Mapping[str, Any]:
        return {}

    def open(self, head: Mapping[str, Any], body: bytes, out: Output) -> Recording:
        return Recording(str(head["path"]), int(head["at_ms"]), out)


def load(options: Mapping[str, Any]) -> Writer:
    if hasattr(os, "nice"):
        os.nice(NICE)
    return Writer()
