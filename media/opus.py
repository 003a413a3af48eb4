"""Opus on the wire, PCM inside: one decoder and one encoder per call, both libopus itself.

The decoder turns any packet a caller may send, mono or stereo, 2.5 to 120 ms, into 16 kHz mono with
exactly a third of the packet's 48 kHz samples, and makes up sound for a packet that never came. The
encoder turns 20 ms of 24 kHz mono into one packet, with no delay but the codec's own. Neither may
ever be left unusable by what a caller sends: a bad payload raises `OpusError`, the next one decodes.
"""

from __future__ import annotations

import ctypes
from typing import Final

import numpy as np

from media import libopus
from media.audio import FRAME_OUT, RATE_IN, RATE_OUT, Pcm

_RATE: Final = 48_000
_MAX_PAYLOAD: Final = 4000
"""Bytes: libopus's own advice for the largest packet; a caller's audio is a tenth of it."""
_MAX_FRAME: Final = 1275
"""Bytes in one coded frame (RFC 6716 section 3.4, R2)."""
_MAX_SAMPLES: Final = 5760
"""48 kHz samples in a packet: 120 ms (RFC 6716 section 3.4, R5)."""
_MAX_CONCEAL: Final = _RATE
"""48 kHz samples concealed by one call: a second, far more than any sense in it."""

_DOWN: Final = _RATE // RATE_IN
_SHORTEST: Final = RATE_IN // 400
"""16 kHz samples in the shortest frame, 2.5 ms."""
_MOST: Final = _MAX_SAMPLES // _DOWN
"""16 kHz samples that are decoded or concealed at once."""
_MAX_PACKET: Final = _MAX_FRAME + 1
"""Bytes in a packet of one frame."""

_GUARD_FROM: Final = 0.03
"""Share of packets lost from which they carry a copy of the one before."""
_GUARD_UNTIL: Final = 0.005
"""Share below which they no longer do."""
_GUARD_BITRATE: Final = 40_000
_GUARD_COMPLEXITY: Final = 5
_GUARD_EXPECTED: Final = 10
"""Per cent of loss that the encoder is told to expect: what it spends on the copies."""

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


def carries_copy(payload: bytes) -> bool:
    """Whether a packet holds a coarse copy of the 20 ms before it (in-band FEC): what libopus 1.5's
    `opus_packet_has_lbrr` says, of packets of one frame of at most 20 ms, mono or stereo (RFC 6716 section 4.2.3).
    """
    if len(payload) < 2 or payload[0] & 3 or payload[0] >= 0x80 or _FRAME_SAMPLES[payload[0]] > 960:
        return False
    return bool(payload[1] & (0x50 if payload[0] & 4 else 0x40))


class OpusDecoder:
    """The decoder of one call. Output is 16 kHz mono int16, a third as many samples as at 48 kHz."""

    def __init__(self) -> None:
        opus = libopus.library()
        self._decode = opus.opus_decode
        self._state = ctypes.create_string_buffer(opus.opus_decoder_get_size(1))
        self._state_at = ctypes.addressof(self._state)
        # Written again and again: asking a fresh array for its address costs more than a copy.
        self._sound: Pcm = np.empty(_MOST, np.int16)
        self._sound_at = self._sound.ctypes.data
        self._start()

    def _start(self) -> None:
        if libopus.library().opus_decoder_init(self._state, RATE_IN, 1) != libopus.OK:
            raise RuntimeError("libopus takes no 16 kHz mono")

    def decode(self, payload: bytes) -> Pcm:
        """1 to 1,920 samples. Raises `OpusError`; the decoder stays usable."""
        samples = packet_samples(payload) // _DOWN
        if len(payload) > _MAX_PAYLOAD or (not payload[0] & 3 and len(payload) > _MAX_FRAME + 1):
            raise OpusError("oversized payload")
        return self._run(payload, samples)

    def recover(self, samples_48k: int, following: bytes) -> Pcm | None:
        """Sound of a packet that never came, out of the copy in the packet after it; None when that has none."""
        if not carries_copy(following) or len(following) > _MAX_PACKET or _FRAME_SAMPLES[following[0]] != samples_48k:
            return None
        try:
            return self._run(following, samples_48k // _DOWN, copy=True)
        except OpusError:
            return None

    def conceal(self, samples_48k: int) -> Pcm:
        """Sound for a packet that never came: `samples_48k` // 3 samples, from what was heard last."""
        wanted = min(max(0, samples_48k), _MAX_CONCEAL) // _DOWN
        pieces = []
        while wanted > 0:
            # libopus makes whole multiples of 2.5 ms.
            size = min(wanted, _MOST)
            pieces.append(self._run(None, -(-size // _SHORTEST) * _SHORTEST)[:size])
            wanted -= size
        return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)

    def _run(self, payload: bytes | None, samples: int, *, copy: bool = False) -> Pcm:
        """`samples` of sound; libopus is told that there is room for no more."""
        size = len(payload) if payload is not None else 0
        got = self._decode(self._state_at, payload, size, self._sound_at, samples, copy)
        if got == samples:
            return self._sound[:samples].copy()
        if got == libopus.INTERNAL_ERROR:
            self._start()
            raise OpusError("the decoder failed")
        # libopus looks a packet over before it touches its state: what was heard last is still there.
        raise OpusError("not Opus" if got < 0 else "not as long as it says")


class OpusEncoder:
    """The encoder of one call: 20 ms of 24 kHz mono in, one packet out.

    `bitrate`: bits per second, 6,000 to 510,000. `complexity`: 0 to 10. CELT only ("low delay"): a
    fourth of the cost of speech mode and 4 ms less look-ahead, at the price of in-band FEC. While packets
    get lost on the way it is speech mode (SILK) with FEC instead, at a bitrate and complexity of its own.
    8 kbit/s more at complexity 1 are nearer to the sound than what complexity 5 makes of 48, for two thirds of the CPU.
    """

    def __init__(self, bitrate: int = 56_000, complexity: int = 1) -> None:
        opus = libopus.library()
        self._encode = opus.opus_encode
        self._state = ctypes.create_string_buffer(opus.opus_encoder_get_size(1))
        self._state_at = ctypes.addressof(self._state)
        self._packet = ctypes.create_string_buffer(_MAX_PACKET)
        self._packet_at = ctypes.addressof(self._packet)
        self._complexity = complexity
        self._bitrate = bitrate
        self._guards = False
        self._start()

    def _start(self) -> None:
        opus = libopus.library()
        application = libopus.APPLICATION_VOIP if self._guards else libopus.APPLICATION_RESTRICTED_LOWDELAY
        failed = opus.opus_encoder_init(self._state, RATE_OUT, 1, application)
        settings = [(libopus.SET_BITRATE, self._bitrate), (libopus.SET_COMPLEXITY, self._complexity)]
        if self._guards:
            settings = [(libopus.SET_BITRATE, min(self._bitrate, _GUARD_BITRATE))]
            settings += [(libopus.SET_COMPLEXITY, max(self._complexity, _GUARD_COMPLEXITY))]
            settings += [(libopus.SET_INBAND_FEC, 1), (libopus.SET_PACKET_LOSS_PERC, _GUARD_EXPECTED)]
        for request, value in settings:
            failed = failed or opus.opus_encoder_ctl(self._state, request, ctypes.c_int(value))
        if failed:
            raise ValueError(f"libopus takes no {self._bitrate} bits per second at complexity {self._complexity}")

    @property
    def setting(self) -> tuple[str, int, int] | None:
        """As `media.codec.Encoder`: what guards against loss is a call's own."""
        return None if self._guards else ("opus", self._bitrate, self._complexity)

    @property
    def guards(self) -> bool:
        """Packets carry a copy of the one before."""
        return self._guards

    def expect_loss(self, share: float) -> None:
        """`share`: of the packets sent, what gets lost lately, 0 to 1. Packets guard against it where that helps."""
        guards = share >= (_GUARD_UNTIL if self._guards else _GUARD_FROM)
        if guards is not self._guards:
            self._guards = guards
            self._start()

    def encode(self, frame: Pcm) -> bytes:
        """Exactly 480 samples. Raises `ValueError` for anything else."""
        if frame.dtype != np.int16 or frame.shape != (FRAME_OUT,):
            raise ValueError("a frame is 480 int16 samples")
        size = self._encode(self._state_at, frame.tobytes(), FRAME_OUT, self._packet_at, _MAX_PACKET)
        if size < 0:
            raise RuntimeError(f"libopus failed with {size}")
        return self._packet.raw[:size]

    def encode_after(self, previous: Pcm, frame: Pcm) -> bytes:
        """As `encode`, where another encoder made the packet of `previous`.

        The overlap of the two packets is the right one then, and nothing else is taken for known to the decoder.
        """
        self._start()
        self.encode(previous)
        self._predict(False)
        packet = self.encode(frame)
        self._predict(True)
        return packet

    def _predict(self, predict: bool) -> None:
        """Whether packets build on what is known of the sound before them."""
        libopus.library().opus_encoder_ctl(self._state, libopus.SET_PREDICTION_DISABLED, ctypes.c_int(not predict))
