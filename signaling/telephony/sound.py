"""A carrier's audio to the one format inside and back. One pair a call, since filters carry on from piece to piece."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import av
import numpy as np

from media import g711
from media.audio import RATE_IN, RATE_OUT, Pcm
from media.opus import OpusDecoder, OpusError
from media.prepared import SharingEncoder, Source
from media.resample import BlockResampler
from signaling.telephony.carrier import Codec

NOTHING: Pcm = np.zeros(0, np.int16)
_LAWS: Final[Mapping[str, g711.Law]] = {"pcmu": g711.ULAW, "pcma": g711.ALAW}


class FromCarrier:
    """Encoded bytes to 16 kHz."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._resampler = BlockResampler(codec.rate, RATE_IN)
        self._odd = b""
        self._opus = OpusDecoder() if codec.encoding == "opus" else None
        self._g722 = _g722() if codec.encoding == "g722" else None

    def push(self, payload: bytes) -> Pcm:
        """Half a sample at the end waits for its other half."""
        match self._codec.encoding:
            case "pcmu":
                pcm = g711.ulaw_decode(payload)
            case "pcma":
                pcm = g711.alaw_decode(payload)
            case "g722":
                pcm = self._from_g722(payload)
            case "opus":
                pcm = self._from_opus(payload)
            case _:
                data = self._odd + payload if self._odd else payload
                whole = len(data) & ~1
                self._odd = data[whole:]
                pcm = np.frombuffer(data, "<i2", whole // 2)
        return self._resampler.push(pcm)

    def _from_g722(self, payload: bytes) -> Pcm:
        if not payload or self._g722 is None:
            return NOTHING  # an empty packet would end the decoder's stream
        return np.concatenate([frame.to_ndarray()[0] for frame in self._g722.decode(av.Packet(payload))] or [NOTHING])

    def _from_opus(self, payload: bytes) -> Pcm:
        try:
            return self._opus.decode(payload) if self._opus is not None else NOTHING
        except OpusError:
            return NOTHING

    def silence(self, ms: int) -> Pcm:
        """As long as this, in place of audio that was lost."""
        return self._resampler.push(np.zeros(self._codec.rate // 1000 * ms, np.int16))


def _g722() -> av.AudioCodecContext:
    decoder = av.AudioCodecContext.create("g722", "r")
    decoder.layout = "mono"
    return decoder


class ToCarrier:
    """24 kHz to encoded bytes; `frame_bytes`: only whole frames come out, `flush` fills the last one up.

    G.711 of what is prepared is shared with all other calls, those over WebRTC too.
    """

    def __init__(self, codec: Codec, frame_bytes: int | None = None) -> None:
        self._codec = codec
        self._frame = frame_bytes
        self._rest = b""
        self.reset()

    def push(self, frames: Sequence[Pcm], sources: Sequence[Source | None] = ()) -> bytes:
        """`sources`: what each frame is of, where that is prepared; such frames are of 480 samples."""
        if self._encoder.is_shared and any(sources):
            data = b"".join(map(self._encoder.encode, frames, sources))
        else:
            data = self._encoder.encode(frames[0] if len(frames) == 1 else np.concatenate(frames), None)
        if self._frame is None:
            return data
        data = self._rest + data
        whole = len(data) - len(data) % self._frame
        self._rest = data[whole:]
        return data[:whole]

    def flush(self) -> bytes:
        """What waits for a whole frame, filled up with silence."""
        rest, self._rest = self._rest, b""
        if self._frame is None or not rest:
            return b""
        law = _LAWS.get(self._codec.encoding)
        return rest + (b"\x00" if law is None else law.silence) * (self._frame - len(rest))

    def reset(self) -> None:
        """What comes next does not follow from what came before."""
        law = _LAWS.get(self._codec.encoding)
        self._encoder = SharingEncoder(_Linear(self._codec.rate) if law is None else g711.Encoder(law))
        self._rest = b""


class _Linear:
    """`media.codec.Encoder` of little-endian samples. They are not shared: there are three rates of them, each several
    times the size of what `[limits] kept_speech_bytes` counts for G.711."""

    setting = None

    def __init__(self, rate: int) -> None:
        self._resampler = BlockResampler(RATE_OUT, rate)

    def encode(self, frame: Pcm) -> bytes:
        return self._resampler.push(frame).astype("<i2", copy=False).tobytes()

    def encode_after(self, previous: Pcm, frame: Pcm) -> bytes:
        self._resampler.push(previous)
        return self.encode(frame)

    def expect_loss(self, share: float) -> None:
        """A carrier reports none."""
