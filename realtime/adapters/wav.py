"""Speech as bytes: WAV files for recognisers, and the audio that vendors' voices send back.

`wav` writes a file. `SpeechReader` takes the bytes of an answer as they arrive, split anywhere, and
gives 24 kHz samples: from raw little-endian 16-bit mono at 24 kHz, or from a WAV stream of any rate
whose header may not know the length. It must never play a header, a text or a compressed file as
sound: those are `AudioError`. Sans-I/O. WAV format: RIFF, Microsoft's `fmt ` chunk.
"""

from __future__ import annotations

import struct

import numpy as np

from media.audio import RATE_OUT, Pcm
from media.resample import RATES, Resampler

MAX_HEADER = 1 << 16
"""Bytes in front of the samples: chunks of metadata are skipped up to here."""

_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_COMPRESSED = (b"ID3", b"OggS", b"fLaC", b"<!DO", b"<htm", b'{"')
_MAGIC = 4


class AudioError(Exception):
    """The bytes are not audio that can be read here."""


def wav(pcm: Pcm, rate: int) -> bytes:
    """A mono 16-bit WAV file."""
    data = pcm.astype("<i2", copy=False).tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, _PCM, 1, rate, rate * 2, 2, 16)
    header = struct.pack("<4sI4s", b"RIFF", 36 + len(data), b"WAVE") + form + struct.pack("<4sI", b"data", len(data))
    return header + data


class SpeechReader:
    """`push` bytes, get samples; `finish` gives the last ones. `header`: the vendor promised a WAV file."""

    def __init__(self, *, header: bool = False) -> None:
        self._header = header
        self._format: _Format | None = None
        self._resampler: Resampler | None = None
        self._held = b""
        self._left: int | None = None
        """Bytes of the data chunk still to come; None when the header does not say."""

    def push(self, data: bytes) -> Pcm:
        data = self._held + data
        self._held = b""
        if self._format is None:
            begin = self._begin(data)
            if begin is None:
                self._held = data
                return _none()
            data = data[begin:]
        assert self._format is not None
        if self._left is not None:
            data = data[: self._left]
        whole = len(data) - len(data) % self._format.frame
        if self._left is not None:
            self._left -= whole
        self._held = data[whole:]
        return self._convert(data[:whole])

    def finish(self) -> Pcm:
        """What the resampler still holds; a torn last sample is dropped."""
        if self._format is None:
            if self._held and self._header:
                raise AudioError("the WAV header is incomplete")
            return _none()
        return self._resampler.flush() if self._resampler else _none()

    def _begin(self, data: bytes) -> int | None:
        """Where the samples begin, once that is known."""
        if len(data) < _MAGIC:
            return None
        if data[:4] == b"RIFF":
            return self._wav_header(data)
        if self._header or data.startswith(_COMPRESSED):
            raise AudioError("the answer is not a WAV file" if self._header else "the answer is not raw audio")
        self._format = _Format(_PCM, 1, RATE_OUT, 2)
        return 0

    def _wav_header(self, data: bytes) -> int | None:
        if len(data) >= 12 and data[8:12] != b"WAVE":
            raise AudioError("a RIFF file that is not WAVE")
        at, found = 12, None
        while len(data) >= at + 8:
            name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
            body = at + 8
            if name == b"data":
                if found is None:
                    raise AudioError("a WAV file without a format")
                self._take(found)
                # Streaming writers put 0 or all ones where they do not know the length yet.
                self._left = None if size == 0 or size >= 0x7FFFFFFF else size
                return body
            if size > MAX_HEADER:
                raise AudioError("a WAV header that does not end")
            if name == b"fmt " and len(data) >= body + size:
                found = _Format.parse(data[body : body + size])
            at = body + size + (size & 1)
        if len(data) > MAX_HEADER or at > MAX_HEADER:
            raise AudioError("a WAV header that does not end")
        return None

    def _take(self, found: _Format) -> None:
        self._format = found
        if found.rate != RATE_OUT:
            self._resampler = Resampler(found.rate, RATE_OUT)

    def _convert(self, data: bytes) -> Pcm:
        assert self._format is not None
        pcm = self._format.mono(data)
        return self._resampler.push(pcm) if self._resampler and pcm.size else pcm


class _Format:
    def __init__(self, code: int, channels: int, rate: int, width: int) -> None:
        if not 1 <= channels <= 8 or rate not in RATES or (code, width) not in ((_PCM, 2), (_FLOAT, 4)):
            raise AudioError(f"WAV format {code} with {channels} channels of {8 * width} bits at {rate} Hz")
        self.code = code
        self.channels = channels
        self.rate = rate
        self.frame = channels * width

    @classmethod
    def parse(cls, chunk: bytes) -> _Format:
        if len(chunk) < 16:
            raise AudioError("a WAV format of less than 16 bytes")
        code, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
        if code == _EXTENSIBLE and len(chunk) >= 26:
            code = int.from_bytes(chunk[24:26], "little")
        return cls(code, channels, rate, bits // 8)

    def mono(self, data: bytes) -> Pcm:
        samples = np.frombuffer(data, "<i2" if self.code == _PCM else "<f4")
        if self.code == _FLOAT:
            samples = np.clip(np.nan_to_num(samples) * 32768.0, -32768, 32767)
        if self.channels > 1:
            samples = samples.reshape(-1, self.channels).mean(axis=1)
        return samples.astype(np.int16)


def _none() -> Pcm:
    return np.zeros(0, np.int16)
