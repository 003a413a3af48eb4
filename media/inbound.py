"""What one caller says: decrypted RTP in, consecutive 16 kHz PCM out. Sans-I/O.

Packets that are not the negotiated codec are counted and dropped; payloads that do not decode are
concealed. Nothing here keeps audio back but the jitter buffer, and nothing is ever handed out twice.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from media.audio import RATE_IN, Pcm
from media.codec import OPUS, Codec
from media.dtmf import Keys
from media.jitter import JitterBuffer, Piece, PieceKind
from media.rtp import ReceiverStatistics, RtpError, RtpPacket

_DOWN = 48_000 // RATE_IN
_MAX_CHUNK = 1920
"""Samples handed out at once: the listener's contract, the longest Opus packet."""

_STALL_S = 0.08
"""Seconds between two ticks, which are 40 ms apart, that mean that this process stood still."""
_CATCH_UP_S = 0.03
"""Seconds for the loop to read what has arrived meanwhile."""


class Inbound:
    """`payload_type`: of the negotiated `codec`. `on_audio(pcm, arrived_at)`: as `LegListener.on_audio`.
    `key_type`: of the negotiated key events, which `on_key` is told.
    """

    def __init__(
        self,
        payload_type: int,
        on_audio: Callable[[Pcm, float], None],
        *,
        codec: Codec = OPUS,
        key_type: int | None = None,
        on_key: Callable[[str], None] = lambda key: None,
    ) -> None:
        self._payload_type = payload_type
        self._on_audio = on_audio
        self._key_type = key_type
        self._on_key = on_key
        self._keys = Keys()
        self._decoder = codec.decoder()
        self._jitter = JitterBuffer(clock_rate=codec.clock_rate, duration=codec.duration, soundless_type=key_type)
        self.statistics = ReceiverStatistics(codec.clock_rate)
        self.bytes_received = 0
        self.packets_unknown = 0
        """Not RTP, or of another payload type than the one negotiated."""
        self.packets_corrupt = 0
        """The negotiated payload type, but nothing that decodes."""
        self._ticked_at = float("inf")
        self._blind_until = float("-inf")
        self.concealed_samples = 0
        """At 16 kHz, made up for what did not come or did not decode."""
        self.recovered_samples = 0
        """At 16 kHz, of packets that did not come, out of the copy in the packet after them."""

    @property
    def next_poll(self) -> float | None:
        return self._jitter.next_poll

    def stats(self) -> dict[str, float]:
        received = self.statistics
        return {
            "packets_received": received.packets_received,
            "bytes_received": self.bytes_received,
            "packets_lost": received.packets_lost,
            "packets_late": self._jitter.late_packets,
            "packets_duplicate": self._jitter.duplicate_packets,
            "packets_unknown": self.packets_unknown,
            "packets_corrupt": self.packets_corrupt,
            "concealed_ms": self.concealed_samples * 1000 / RATE_IN,
            "recovered_ms": self.recovered_samples * 1000 / RATE_IN,
            "jitter_ms": received.jitter_ms,
        }

    def packet(self, plain: bytes, now: float) -> None:
        """One decrypted RTP packet that arrived at `now`."""
        try:
            packet = RtpPacket.parse(plain)
        except RtpError:
            self.packets_unknown += 1
            return
        if packet.payload_type != self._payload_type:
            if packet.payload_type != self._key_type:
                self.packets_unknown += 1
                return
            key = self._keys.press(packet)
            if key is not None:
                self._on_key(key)
        self.bytes_received += len(packet.payload)
        self.statistics.add(packet, now)
        for piece in self._jitter.add(packet, now):
            self._play(piece)

    def tick(self, now: float) -> None:
        """Called every 40 ms: give up gaps and fill silence when it is time.

        After a stall of this process the clock runs ahead of the packets, which wait in the kernel: what
        they hold must not be taken for silence, so nothing is given up until they have been read.
        """
        late, self._ticked_at = now - self._ticked_at > _STALL_S, now
        if late:
            self._blind_until = now + _CATCH_UP_S
        if now >= self._blind_until and self.next_poll is not None and now >= self.next_poll:
            self.poll(now)

    def poll(self, now: float) -> None:
        """Time has passed: give up gaps that stayed open, fill silence."""
        for piece in self._jitter.poll(now):
            self._play(piece)

    def _play(self, piece: Piece) -> None:
        if piece.kind is PieceKind.PACKET:
            try:
                pcm = self._decoder.decode(piece.payload)
            except ValueError:
                self.packets_corrupt += 1
                pcm = self._conceal(piece.samples)
        elif piece.kind is PieceKind.LOST:
            pcm = self._recover(piece)
        else:
            pcm = np.zeros(piece.samples // _DOWN, np.int16)
        for start in range(0, len(pcm), _MAX_CHUNK):
            self._on_audio(pcm[start : start + _MAX_CHUNK], piece.arrived_at)

    def _recover(self, piece: Piece) -> Pcm:
        pcm = self._decoder.recover(piece.samples, piece.payload)
        if pcm is None:
            return self._conceal(piece.samples)
        self.recovered_samples += len(pcm)
        return pcm

    def _conceal(self, samples: int) -> Pcm:
        pcm = self._decoder.conceal(samples)
        self.concealed_samples += len(pcm)
        return pcm
