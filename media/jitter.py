"""Packets as they arrive, pieces of sound in order. Sans-I/O.

Nobody listens to this audio in real time: it feeds voice activity detection and a recogniser. So
nothing is delayed to smooth the arrival; a packet in order comes out at once, and a clock that drifts
needs no correction. Only a gap is waited for, then it is given up: for `hold_ms`, and on a path where
packets have lately come later than that, as long as the latest of them took, up to `max_hold_ms`. Two
seconds after the last such packet it is `hold_ms` again. Every call returns all the pieces there are.

    WAITING --first packet--> FLOWING <--gap closed, or given up-- HOLDING
                               |   ^ \\____________ gap ______________^
             nothing is coming |   | packet                          |
                               v   |                                 |
                              FILLING --max_quiet_ms--> QUIET        |
                                 \\____________\\________ gap _________/

Sequence numbers alone decide what is late: such a packet is dropped and never played out of order
or twice. Timestamps alone decide how much sound is missing: a little is LOST (to be concealed), more
is SILENCE, and more than `max_fill_ms` is skipped, as after a restart. When the sender falls silent,
`poll` lets media time run on in real time for `max_quiet_ms`, so that no end of an utterance waits
for the next packet. Sound that follows in sequence is played even where that silence stood in for
it, for it is speech all the same.

No sequence of packets may make this raise, hold more than `capacity` packets, or make up more than
`max_fill_ms` of sound beyond the time that really passed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from media.opus import packet_samples
from media.rtp import RtpPacket

_RATE: Final = 48_000
_FRAME: Final = 960
"""48 kHz samples, 20 ms: the piece in which silence is made, and the length of a packet that tells none."""
_FRAME_S: Final = _FRAME / _RATE
_MIN_GAP: Final = 120
"""48 kHz samples, 2.5 ms: the shortest Opus frame. Less is a sender's rounding; sound is made up in multiples of it."""
_MAX_PACKET: Final = 5760
"""48 kHz samples, 120 ms: the longest Opus packet."""
_MAX_CONCEAL: Final = 2880
"""48 kHz samples, 60 ms: concealment repeats what was heard; longer than this it only hums."""

_MAX_JUMP: Final = 50
"""Packets, 1 s at 20 ms: a gap this long is not reordering, there is nothing to wait for."""
_MAX_LATE: Final = 100
"""Packets: further back is a sender that restarted (RFC 3550 appendix A.1), nearer is late."""
_MAX_OUTAGE: Final = 3000
"""Packets: a longer jump forwards is a restart, and nothing was lost by it (RFC 3550 appendix A.1)."""

_LATELY_S: Final = 1.0
"""Seconds for which the longest wait for a missing packet is kept, and then as long again as the one before."""
_HOLD_MARGIN_S: Final = 0.01

_PATIENCE_S: Final = 0.06
"""Seconds after a packet was due at which its sender counts as silent."""
_MAX_PATIENCE_S: Final = 0.25
"""Seconds: on a path that has shown so much jitter the silence may wait longer, but not for ever."""
_MARGIN_S: Final = 0.02
_PATIENCE_DECAY_S: Final = 0.0001
"""Seconds a packet: a path that has calmed down is trusted again after half a minute."""
_CLOCK_LEAK_S: Final = 0.00002
"""Seconds a packet: follows a sender whose clock is slower than ours by up to 0.1 %."""


class PieceKind(Enum):
    PACKET = "packet"
    """A payload to decode."""
    LOST = "lost"
    """A packet that never came: to be concealed."""
    SILENCE = "silence"
    """Nothing was sent, or too much was lost to conceal."""


@dataclass(slots=True)
class Piece:
    """The next sound in media time. `samples`: at 48 kHz, whatever the codec.

    `payload`: what to decode; of a LOST piece that of the packet after it, which may hold a coarse copy of what
    was lost (RFC 6716 section 2.1.7), empty when that is not known.
    `arrived_at`: monotonic seconds at which the packet arrived, for the others when it was due;
    never less than that of the piece before.
    """

    kind: PieceKind
    payload: bytes
    samples: int
    arrived_at: float


class Flow(Enum):
    WAITING = "waiting"
    FLOWING = "flowing"
    HOLDING = "holding"
    FILLING = "filling"
    QUIET = "quiet"


class JitterBuffer:
    """The receive side of one call.

    `clock_rate`: Hz of the RTP timestamps, a divisor of 48,000. `duration`: 48 kHz samples in a
    payload; where it raises `ValueError`, or is out of range, 20 ms are assumed. `soundless_type`:
    payload type of packets that take a sequence number and hold no sound (keys of a telephone).
    """

    def __init__(
        self,
        *,
        clock_rate: int = _RATE,
        hold_ms: float = 40.0,
        max_hold_ms: float = 120.0,
        capacity: int = 64,
        max_fill_ms: float = 1000.0,
        max_quiet_ms: float = 2000.0,
        duration: Callable[[bytes], int] = packet_samples,
        soundless_type: int | None = None,
    ) -> None:
        if clock_rate <= 0 or _RATE % clock_rate:
            raise ValueError("the clock rate must divide 48000")
        self._factor = _RATE // clock_rate
        self._hold = hold_ms / 1000
        self._max_hold = max(hold_ms, max_hold_ms) / 1000
        self._longest = [0.0, 0.0]
        """Seconds, the longest wait for a packet that came after all: of this period and of the one before."""
        self._period_until = 0.0
        self._capacity = max(1, capacity)
        self._max_fill = round(max_fill_ms * _RATE / 1000)
        self._max_quiet = round(max_quiet_ms * _RATE / 1000)
        self._duration = duration
        self._soundless_type = soundless_type

        self._flow = Flow.WAITING
        self._ssrc = 0
        self._first = 0
        """Sequence number of the first packet since the last (re)start; all of these are unwrapped."""
        self._next = 0
        self._highest = 0
        self._next_timestamp = 0
        self._pending: dict[int, tuple[RtpPacket, float]] = {}
        self._given_up: dict[int, float] = {}
        """Sequence numbers that were not waited for any longer, and when waiting for them began."""
        self._hold_until = 0.0
        self._last_samples = _FRAME
        self._last_at = 0.0

        self._due = 0.0
        """When the next packet should arrive, by the least delayed ones so far."""
        self._patience = _PATIENCE_S
        self._quiet = 0
        """48 kHz samples of silence since the last packet."""
        self._budget = float(self._max_fill)
        self._budget_at = 0.0

        self.late_packets = 0
        self.lost_packets = 0
        self.duplicate_packets = 0

    @property
    def flow(self) -> Flow:
        return self._flow

    @property
    def held(self) -> int:
        """Packets waiting behind a gap."""
        return len(self._pending)

    @property
    def next_poll(self) -> float | None:
        """When `poll` will have something to do, monotonic seconds."""
        if self._flow is Flow.FLOWING:
            return self._due + self._patience
        if self._flow is Flow.HOLDING:
            return self._hold_until
        return self._due if self._flow is Flow.FILLING else None

    def add(self, packet: RtpPacket, now: float) -> list[Piece]:
        """A packet has arrived; the pieces that can go out now."""
        out: list[Piece] = []
        if self._flow is Flow.WAITING or packet.ssrc != self._ssrc:
            self._restart(packet, now, out)
            return out
        if not self._pending and packet.sequence == self._next & 0xFFFF:
            self._play(packet, now, now, out)
            return out
        sequence = self._next + _signed(packet.sequence - self._next, 16)
        if sequence < self._next - _MAX_LATE:
            self._restart(packet, now, out)
        elif sequence < self._next:
            self._count_late(sequence, now)
        elif sequence > self._highest + _MAX_JUMP:
            self._release(now, out)
            if sequence - self._next < _MAX_OUTAGE:
                self.lost_packets += sequence - self._next
            self._restart(packet, now, out)
        elif sequence in self._pending:
            self.duplicate_packets += 1
        else:
            if sequence < self._highest:
                self._waited(now - self._first_behind(sequence), now)
            self._pending[sequence] = (packet, now)
            self._highest = max(self._highest, sequence)
            self._advance(now, out)
        return out

    def poll(self, now: float) -> list[Piece]:
        """Time has passed; what has been waited for long enough."""
        out: list[Piece] = []
        if self._flow is Flow.HOLDING:
            self._advance(now, out)
        if self._flow is Flow.FLOWING and now >= self._due + self._patience:
            self._flow = Flow.FILLING
        if self._flow is Flow.FILLING:
            while self._due <= now and self._quiet < self._max_quiet:
                self._make(PieceKind.SILENCE, _FRAME, now, out)
                self._quiet += _FRAME
            if self._quiet >= self._max_quiet:
                self._flow = Flow.QUIET
        return out

    def _advance(self, now: float, out: list[Piece]) -> None:
        """Play what is in order; give up gaps held long enough, or too full to hold."""
        while self._pending:
            held = self._pending.pop(self._next, None)
            if held is not None:
                self._play(*held, now, out)
                continue
            self._flow = Flow.HOLDING
            self._hold_until = min(arrived for _, arrived in self._pending.values()) + self._held_open(now)
            if now < self._hold_until and len(self._pending) <= self._capacity:
                return
            self._give_up(now, out)

    def _held_open(self, now: float) -> float:
        """Seconds for which a gap is held at present."""
        if now >= self._period_until:
            missed = now >= self._period_until + _LATELY_S
            self._longest = [0.0, 0.0 if missed else self._longest[0]]
            self._period_until = now + _LATELY_S
        return max(self._hold, min(max(self._longest) + _HOLD_MARGIN_S, self._max_hold))

    def _waited(self, seconds: float, now: float) -> None:
        """A packet came this long after the first one behind it."""
        self._held_open(now)
        self._longest[0] = max(self._longest[0], seconds)

    def _first_behind(self, sequence: int) -> float:
        """When waiting for this packet began."""
        return min(arrived for held, (_, arrived) in self._pending.items() if held > sequence)

    def _release(self, now: float, out: list[Piece]) -> None:
        """Play all that is held: what is missing in between will not come."""
        while self._pending:
            if self._next not in self._pending:
                self._give_up(now, out)
            self._play(*self._pending.pop(self._next), now, out)

    def _restart(self, packet: RtpPacket, now: float, out: list[Piece]) -> None:
        """Another stream, or a sender that began anew: go on from this packet, without a gap."""
        self._release(now, out)
        self._ssrc = packet.ssrc
        self._first = self._next = packet.sequence
        self._highest = packet.sequence
        self._next_timestamp = packet.timestamp
        self._given_up.clear()
        self._due = now
        self._play(packet, now, now, out)

    def _play(self, packet: RtpPacket, arrived: float, now: float, out: list[Piece]) -> None:
        """The next packet in sequence goes out, after the silence its timestamp leaves before it."""
        if packet.payload_type == self._soundless_type:
            # All packets of a press have its timestamp: they say nothing of when the next is due.
            self._next += 1
            self._highest = max(self._highest, self._next - 1)
            self._flow = Flow.FLOWING
            return
        gap = _signed(packet.timestamp - self._next_timestamp, 32) * self._factor
        if gap:
            self._bridge(gap, now, out)
        late = arrived - self._due
        if late <= 0 or late > _MAX_PATIENCE_S:
            # Sooner than any before; or not jitter, but a clock that stood still.
            self._due = arrived
        else:
            self._due += min(late, _CLOCK_LEAK_S)
            if late + _MARGIN_S > self._patience:
                self._patience = min(late + _MARGIN_S, _MAX_PATIENCE_S)
        if self._patience > _PATIENCE_S:
            self._patience -= _PATIENCE_DECAY_S
        samples = self._samples(packet.payload)
        self._last_at = max(self._last_at, arrived)
        out.append(Piece(PieceKind.PACKET, packet.payload, samples, self._last_at))
        self._last_samples = samples
        self._due += samples / _RATE
        self._next_timestamp = packet.timestamp + samples // self._factor
        if self._highest < self._next:
            self._highest = self._next
        self._next += 1
        self._quiet = 0
        self._flow = Flow.FLOWING

    def _give_up(self, now: float, out: list[Piece]) -> None:
        """The gap before the first packet held: conceal a little, leave the rest to its timestamp."""
        first = min(self._pending)
        missing = first - self._next
        self.lost_packets += missing
        packet, _ = self._pending[first]
        self._given_up.update(dict.fromkeys(range(self._next, first), self._first_behind(self._next)))
        self._given_up = {lost: since for lost, since in self._given_up.items() if lost >= first - _MAX_LATE}
        self._next = first
        gap = _signed(packet.timestamp - self._next_timestamp, 32) * self._factor
        if 0 < gap <= self._max_fill:
            wanted = min(gap, missing * self._last_samples, _MAX_CONCEAL)
            made = self._fill(PieceKind.LOST, wanted, self._last_samples, now, out)
            if made == gap:
                out[-1] = replace(out[-1], payload=packet.payload)

    def _bridge(self, gap: int, now: float, out: list[Piece]) -> None:
        """A step of the timestamp beyond what has been played, in 48 kHz samples, either way."""
        if 0 < gap <= self._max_fill:
            made = self._fill(PieceKind.SILENCE, gap, _FRAME, now, out)
            self._due += (gap - made) / _RATE
        elif -self._max_quiet <= gap < 0:
            self._due += gap / _RATE
        else:
            # Skipped, and as good as a restart for the clock too.
            self._due = now

    def _fill(self, kind: PieceKind, samples: int, size: int, now: float, out: list[Piece]) -> int:
        """Make up `samples` of sound in pieces of `size`, as far as the budget goes; what was made."""
        passed = max(0.0, now - self._budget_at)
        self._budget = min(self._max_fill, self._budget + passed * _RATE)
        self._budget_at = now
        wanted = min(samples, int(self._budget))
        wanted -= wanted % _MIN_GAP
        self._budget -= wanted
        made = 0
        while made < wanted:
            piece = min(size, wanted - made)
            self._make(kind, piece, now, out)
            made += piece
        return made

    def _make(self, kind: PieceKind, samples: int, now: float, out: list[Piece]) -> None:
        self._last_at = max(self._last_at, min(self._due, now))
        out.append(Piece(kind, b"", samples, self._last_at))
        self._due += samples / _RATE
        self._next_timestamp += samples // self._factor

    def _count_late(self, sequence: int, now: float) -> None:
        since = self._given_up.pop(sequence, None)
        if since is not None:
            self._waited(now - since, now)
            self.late_packets += 1
        elif sequence < self._first:
            self.late_packets += 1
        else:
            self.duplicate_packets += 1

    def _samples(self, payload: bytes) -> int:
        try:
            samples = self._duration(payload)
        except ValueError:
            return _FRAME
        return samples if 0 < samples <= _MAX_PACKET else _FRAME


def _signed(difference: int, bits: int) -> int:
    """A difference of counters that wrap at `bits`, as the shorter way round."""
    half = 1 << bits - 1
    return (difference + half & (half << 1) - 1) - half
