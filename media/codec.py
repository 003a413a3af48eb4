"""The codecs that a call over WebRTC may use, behind one shape: Opus, and G.711 for gateways of telephone networks.

Every decoder gives 16 kHz mono, every encoder takes 20 ms of 24 kHz mono. `CODECS` is what a peer negotiates.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from media import g711, opus
from media.audio import Pcm


class Decoder(Protocol):
    def decode(self, payload: bytes) -> Pcm:
        """16 kHz, at most 120 ms. Raises `ValueError` for what is not this codec; the next payload decodes."""

    def conceal(self, samples_48k: int) -> Pcm:
        """Sound for a packet that never came, by what was heard last: `samples_48k` // 3 samples."""

    def recover(self, samples_48k: int, following: bytes) -> Pcm | None:
        """The same out of a copy in the packet after it; None when that has none."""


class Encoder(Protocol):
    @property
    def setting(self) -> Hashable | None:
        """Encoders of the same one make the same packets. None while packets are made for this call alone."""

    def encode(self, frame: Pcm) -> bytes:
        """One packet of exactly 480 samples at 24 kHz."""

    def encode_after(self, previous: Pcm, frame: Pcm) -> bytes:
        """The same, where another encoder made the packet before, of `previous`: it decodes after that one too."""

    def expect_loss(self, share: float) -> None:
        """`share`: of the packets sent, what gets lost lately, 0 to 1. Packets guard against it where that helps."""


@dataclass(frozen=True, slots=True)
class Codec:
    """`name`: as in `a=rtpmap`, lower case. `clock_rate`: Hz of its RTP timestamps. `silence`: 20 ms of it.
    `duration(payload)`: 48 kHz samples; raises `ValueError`.
    """

    name: str
    clock_rate: int
    silence: bytes
    duration: Callable[[bytes], int]
    decoder: Callable[[], Decoder]
    encoder: Callable[[], Encoder]


OPUS: Final = Codec("opus", 48_000, opus.SILENCE_PACKET, opus.packet_samples, opus.OpusDecoder, opus.OpusEncoder)


def _g711(name: str, law: g711.Law) -> Codec:
    """Its timestamps count samples at 8 kHz (RFC 3551 section 4.5.14)."""
    decoder, encoder = partial(g711.Decoder, law), partial(g711.Encoder, law)
    return Codec(name, g711.RATE, law.silence * (g711.RATE // 50), g711.duration, decoder, encoder)


PCMU: Final = _g711("pcmu", g711.ULAW)
PCMA: Final = _g711("pcma", g711.ALAW)
CODECS: Final[Mapping[str, Codec]] = {codec.name: codec for codec in (OPUS, PCMU, PCMA)}
