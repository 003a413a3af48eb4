"""24 kHz samples into mp3, wav, ogg (Opus) or raw pcm, piece by piece, with FFmpeg.

Every format works with every vendor, because all voices give samples and the encoding is ours. Pieces are
small enough that encoding one takes a millisecond or two.
"""

from __future__ import annotations

import struct
from typing import Any, Literal, TypeAlias

import av
import numpy as np

from media.audio import RATE_OUT, Pcm
from realtime.adapters.wav import wav

Format: TypeAlias = Literal["mp3", "wav", "ogg", "pcm"]

MIME: dict[Format, str] = {"mp3": "audio/mpeg", "wav": "audio/wav", "ogg": "audio/ogg", "pcm": "audio/pcm"}
PIECE = RATE_OUT // 5
"""Samples encoded at once: 200 ms."""
_CODECS = {"mp3": ("mp3", "libmp3lame", 64_000), "ogg": ("ogg", "libopus", 32_000)}
_UNKNOWN = 0xFFFFFFFF


class _Sink:
    """A file that cannot be sought: what was written is taken out."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self.data)
        self.data.clear()
        return data


class Encoder:
    """`push` samples, get bytes; `finish` gives the last ones."""

    def __init__(self, form: Format) -> None:
        self.form = form
        self._sink = _Sink()
        self._container: Any = None
        self._samples = 0
        self._begun = False
        if form in _CODECS:
            container, codec, rate = _CODECS[form]
            options = {"write_xing": "0", "id3v2_version": "0"} if form == "mp3" else {"page_duration": "200000"}
            self._container = av.open(self._sink, mode="w", format=container, options=options)
            self._stream = self._container.add_stream(codec, rate=RATE_OUT, layout="mono")
            self._stream.bit_rate = rate

    def push(self, pcm: Pcm) -> bytes:
        if self._container is None:
            head = _wav_head() if self.form == "wav" and not self._begun else b""
            self._begun = True
            return head + pcm.astype("<i2", copy=False).tobytes()
        for at in range(0, len(pcm), PIECE):
            self._encode(pcm[at : at + PIECE])
        return self._sink.take()

    def finish(self) -> bytes:
        if self._container is None:
            return b""
        for packet in self._stream.encode(None):
            self._container.mux(packet)
        self._container.close()
        return self._sink.take()

    def _encode(self, pcm: Pcm) -> None:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(pcm).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = RATE_OUT
        frame.pts = self._samples
        self._samples += len(pcm)
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


def whole_wav(pcm: Pcm) -> bytes:
    """A WAV file that knows its length."""
    return wav(pcm, RATE_OUT)


def _wav_head() -> bytes:
    """Of a stream: the length is not known yet."""
    head = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", _UNKNOWN, b"WAVE", b"fmt ", 16, 1, 1, RATE_OUT, RATE_OUT * 2, 2, 16)
    return head + struct.pack("<4sI", b"data", _UNKNOWN)
