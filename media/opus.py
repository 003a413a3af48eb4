"""Opus on the wire, PCM inside: one decoder and one encoder per call, both through PyAV's libopus.

The decoder turns any packet a caller may send, mono or stereo, 2.5 to 120 ms, into 16 kHz mono with
exactly a third of the packet's 48 kHz samples, and makes up sound for a packet that never came. The
encoder turns 20 ms of 24 kHz mono into one packet, with no delay but the codec's own. Neither may
ever be left unusable by what a caller sends: a bad payload raises `OpusError`, the next one decodes.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path
from typing import Final

import av
import av.error
import numpy as np
import numpy.typing as npt

from media.audio import FRAME_OUT, RATE_OUT, Pcm

_RATE: Final = 48_000
_MAX_PAYLOAD: Final = 4000
"""Bytes: libopus's own advice for the largest packet; a caller's audio is a tenth of it."""
_MAX_FRAME: Final = 1275
"""Bytes in one coded frame (RFC 6716 section 3.4, R2)."""
_MAX_SAMPLES: Final = 5760
"""48 kHz samples in a packet: 120 ms (RFC 6716 section 3.4, R5)."""
_MAX_CONCEAL: Final = _RATE
"""48 kHz samples concealed by one call: a second, far more than any sense in it."""

SILENCE_PACKET: Final = b"\xd8\xff\xfe"
"""20 ms of digital silence: what `OpusEncoder` itself gives for zeros (CELT, 12 kHz wide, mono)."""


class OpusError(ValueError):
    """A payload that is not Opus, or breaks its limits."""


def _frame_samples(toc: int) -> int:
    """48 kHz samples in one frame by the configuration in a TOC byte (RFC 6716 table 2)."""
    config = toc >> 3
    if config >= 16:
        return 120 << (config & 3)
    if config >= 12:
        return 480 << (config & 1)
    return (480, 960, 1920, 2880)[config & 3]


_FRAME_SAMPLES: Final = tuple(_frame_samples(toc) for toc in range(256))


def packet_samples(payload: bytes) -> int:
    """48 kHz samples in a packet, by its first two bytes. Raises `OpusError`."""
    if not payload:
        raise OpusError("empty payload")
    toc = payload[0]
    code = toc & 3
    if code == 0:
        return _FRAME_SAMPLES[toc]
    if code < 3:
        return 2 * _FRAME_SAMPLES[toc]
    if len(payload) < 2:
        raise OpusError("frame count missing")
    samples = (payload[1] & 0x3F) * _FRAME_SAMPLES[toc]
    if not 0 < samples <= _MAX_SAMPLES:
        raise OpusError("not between one frame and 120 ms")
    return samples


class OpusDecoder:
    """The decoder of one call. Output is 16 kHz mono int16, a third as many samples as at 48 kHz."""

    def __init__(self) -> None:
        self._codec = _open_decoder()
        self._third = _Third()
        self._toc = SILENCE_PACKET[0]

    def decode(self, payload: bytes) -> Pcm:
        """1 to 1,920 samples. Raises `OpusError`; the decoder stays usable."""
        samples = packet_samples(payload)
        if len(payload) > _MAX_PAYLOAD or (not payload[0] & 3 and len(payload) > _MAX_FRAME + 1):
            raise OpusError("oversized payload")
        pcm = self._run(payload)
        if len(pcm) != samples:
            raise OpusError("not as long as it says")
        # One frame of the same kind: its first byte alone asks libopus for concealment.
        self._toc = payload[0] & 0xFC
        return self._third.push(pcm)

    def conceal(self, samples_48k: int) -> Pcm:
        """Sound for a packet that never came: `samples_48k` // 3 samples, from what was heard last."""
        wanted = min(max(0, samples_48k), _MAX_CONCEAL)
        pieces = []
        missing = wanted - wanted % 3
        while missing > 0:
            pcm = self._run(bytes((self._toc,)))[:missing]
            pieces.append(self._third.push(pcm))
            missing -= len(pcm)
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)

    def _run(self, payload: bytes) -> Pcm:
        try:
            # Never an empty packet: to ffmpeg that is the end of the stream.
            (frame,) = self._codec.decode(av.Packet(payload))
        except av.error.InvalidDataError as error:
            # libopus looks a packet over before it touches its state: what was heard last is still there.
            raise OpusError("not Opus") from error
        except (av.error.FFmpegError, ValueError) as error:
            self._codec = _open_decoder()
            raise OpusError("the decoder failed") from error
        samples: Pcm = np.frombuffer(memoryview(frame.planes[0]), np.int16, frame.samples)
        return samples


def _open_decoder() -> av.AudioCodecContext:
    # "opus" would be ffmpeg's own decoder, which does not conceal. ffmpeg's libopus wrapper always
    # gives 48 kHz, whatever sample rate it is asked for; mono it does honour, for stereo packets too.
    codec = av.CodecContext.create("libopus", "r")
    assert isinstance(codec, av.AudioCodecContext)
    codec.sample_rate = _RATE
    codec.layout = "mono"
    codec.open()
    return codec


_TAPS: Final = 96
"""Filter length: -0.5 dB at 7 kHz, below -60 dB from 9 kHz; delays by 1 ms, and keeps nothing back."""
_BLOCK_IN: Final = 120
"""48 kHz samples in one row of the product: 2.5 ms, which every Opus frame is a multiple of."""
_BLOCK_OUT: Final = _BLOCK_IN // 3


def _third_matrix() -> npt.NDArray[np.float32]:
    """Column j weighs a row of `_TAPS` past and `_BLOCK_IN` new samples into its j-th output sample."""
    time = np.arange(_TAPS) - (_TAPS - 1) / 2
    taps = np.sinc(2 * 7900 / _RATE * time) * np.kaiser(_TAPS, 6.0)
    taps /= taps.sum()
    matrix = np.zeros((_TAPS + _BLOCK_IN, _BLOCK_OUT), np.float32)
    for column in range(_BLOCK_OUT):
        end = _TAPS + 3 * column + 3
        matrix[end - _TAPS : end, column] = taps
    return matrix


_MATRIX: Final = _third_matrix()


class _Third:
    """48 kHz to 16 kHz by one small matrix product: 9 us per 20 ms where `av.AudioResampler` takes 18,
    and the sample count is exact at once (swresample holds back 1 ms of the first frame)."""

    def __init__(self) -> None:
        self._tail = np.zeros(_TAPS, np.float32)

    def push(self, pcm: Pcm) -> Pcm:
        """A third of the samples (rounded down; whole for every Opus frame)."""
        rows = -(-len(pcm) // _BLOCK_IN)
        held = np.empty(_TAPS + rows * _BLOCK_IN, np.float32)
        held[:_TAPS] = self._tail
        end = _TAPS + len(pcm)
        held[_TAPS:end] = pcm
        held[end:] = 0
        self._tail = held[end - _TAPS : end]
        # Overlapping rows, copied because BLAS takes none such. (`as_strided` says the same in five times the time.)
        windows = np.ndarray((rows, _TAPS + _BLOCK_IN), np.float32, held, 0, (4 * _BLOCK_IN, 4))
        out = np.dot(windows.copy(), _MATRIX)
        # Clipped before the cast: out of range it is undefined, and wraps on some processors.
        np.rint(out, out=out)
        np.minimum(out, 32767, out=out)
        np.maximum(out, -32768, out=out)
        thirds: Pcm = out.astype(np.int16).reshape(-1)[: len(pcm) // 3]
        return thirds


@cache
def _spare_threads() -> None:
    """Tell ffmpeg that there is one processor. PyAV puts a filter graph before every encoder, and ffmpeg starts
    up to 16 threads for each, one a processor, that never get anything to do."""
    package = Path(av.__file__).parent
    for library in (*package.parent.glob("av.libs/*avutil*"), *package.glob(".dylibs/*avutil*")):
        # The one that is loaded already. Where PyAV was built against a system's own, its threads stay.
        ctypes.CDLL(str(library)).av_cpu_force_count(1)


class OpusEncoder:
    """The encoder of one call: 20 ms of 24 kHz mono in, one packet out.

    `bitrate`: bits per second, 6,000 to 510,000. `complexity`: 0 to 10. CELT only ("lowdelay"): a
    third of the cost of speech mode and 4 ms less look-ahead, at the price of in-band FEC.
    """

    def __init__(self, bitrate: int = 48_000, complexity: int = 5) -> None:
        _spare_threads()
        codec = av.CodecContext.create("libopus", "w")
        assert isinstance(codec, av.AudioCodecContext)
        codec.sample_rate = RATE_OUT
        codec.layout = "mono"
        codec.format = "s16"
        codec.bit_rate = bitrate
        codec.options = {"application": "lowdelay", "compression_level": str(complexity), "frame_duration": "20"}
        codec.open()
        self._codec = codec
        self._frame = av.AudioFrame(format="s16", layout="mono", samples=FRAME_OUT)
        self._frame.sample_rate = RATE_OUT

    def encode(self, frame: Pcm) -> bytes:
        """Exactly 480 samples. Raises `ValueError` for anything else."""
        if frame.dtype != np.int16 or frame.shape != (FRAME_OUT,):
            raise ValueError("a frame is 480 int16 samples")
        # libopus has read the samples when `encode` returns, so one frame object serves them all.
        self._frame.planes[0].update(frame.tobytes())
        self._frame.pts = None
        packets = self._codec.encode(self._frame)
        return bytes(packets[0])
