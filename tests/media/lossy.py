"""A bad network between a caller and a server: what becomes of each packet, from a seed; and a relay that does it.

The fate of an audio packet depends on the seed and on its place in the stream alone, never on the clock or
on what else is sent: a seed does the same to the sound on every machine.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.media.webrtc import Cable

Fate = tuple[float, ...]
"""Seconds after which each copy of a packet arrives; empty when none does."""


@dataclass(frozen=True)
class Link:
    """One direction. `loss`: share of packets, drawn each by itself, or in runs of `burst` on average.

    `delay_ms`, `sigma_ms`: normally distributed, each packet by itself, never less than 0; `in_order`: none overtakes
    another, as behind one queue. `late`: share that takes `late_ms` more. `twice`: share that comes once more, 5 ms
    after. `outages`: (first packet, packets) of the stream that are lost; other traffic is not.
    """

    loss: float = 0.0
    burst: float = 1.0
    delay_ms: float = 0.0
    sigma_ms: float = 0.0
    in_order: bool = False
    late: float = 0.0
    late_ms: float = 0.0
    twice: float = 0.0
    outages: tuple[tuple[int, int], ...] = ()

    def fates(self, seed: str) -> Iterator[Fate]:
        """Of one packet every 20 ms after another."""
        draw = random.Random(seed)
        losing, index, latest = False, -1, 0.0
        while True:
            index += 1
            losing = self._loses(draw, losing)
            delay = max(0.0, draw.gauss(self.delay_ms, self.sigma_ms)) / 1000
            if draw.random() < self.late:
                delay += self.late_ms / 1000
            again = draw.random() < self.twice
            if losing or any(first <= index < first + count for first, count in self.outages):
                yield ()
                continue
            if self.in_order:
                delay = max(delay, latest - index * 0.02)
                latest = index * 0.02 + delay
            yield (delay, delay + 0.005) if again else (delay,)

    def _loses(self, draw: random.Random, losing: bool) -> bool:
        """Gilbert's model: it goes on losing with a chance of 1 - 1/burst, and begins so that the share is right."""
        if self.burst <= 1:
            return draw.random() < self.loss
        begins = self.loss / (self.burst * (1 - self.loss))
        return draw.random() < (1 - 1 / self.burst if losing else begins)


CLEAN = Link()
BAD = Link(loss=0.05, delay_ms=50, sigma_ms=10)
"""What calls must sound whole over: 5 % lost, 50 ms of delay with a deviation of 10 ms, each packet by itself."""


class _Stream:
    """The fates of one stream by sequence number, and of everything that is no audio packet."""

    def __init__(self, link: Link, seed: str) -> None:
        self._fates = link.fates(f"{seed} audio")
        self._others = Link(loss=link.loss, delay_ms=link.delay_ms, sigma_ms=link.sigma_ms).fates(f"{seed} other")
        self._known: list[Fate] = []
        self._first: int | None = None

    def fate(self, data: bytes) -> Fate:
        if not 128 <= data[0] <= 191 or 192 <= data[1] <= 223:
            return next(self._others)
        sequence = int.from_bytes(data[2:4], "big")
        if self._first is None:
            self._first = sequence
        index = sequence - self._first & 0xFFFF
        if index >= 0x8000:
            return (0.0,)  # sent before the trouble began
        while len(self._known) <= index:
            self._known.append(next(self._fates))
        return self._known[index]


@dataclass
class LossyCable(Cable):
    """A cable that becomes a bad network when told to `worsen`: until then a call comes up over it undisturbed."""

    up: _Stream | None = None
    down: _Stream | None = None
    arrived: dict[int, float] = field(default_factory=dict)
    """When the audio packet with this RTP timestamp first arrived at the peer: `time.monotonic()` seconds."""

    def worsen(self, up: Link, seed: object, down: Link | None = None) -> None:
        """`up`: from the caller to the peer, `down`: back, the same unless said otherwise."""
        self.up = _Stream(up, f"{seed} up")
        self.down = _Stream(down or up, f"{seed} down")

    def mend(self) -> None:
        self.up = self.down = None

    def datagram_received(self, data: bytes, addr: tuple) -> None:
        self._caller = addr
        for delay in self.up.fate(data) if self.up is not None else (0.0,):
            self._after(delay, self._to_peer, data)

    def _from_peer(self, data: bytes) -> None:
        for delay in self.down.fate(data) if self.down is not None else (0.0,):
            self._after(delay, super()._from_peer, data)

    def _to_peer(self, data: bytes) -> None:
        if self.is_cut or self._back is None:
            return
        if 128 <= data[0] <= 191 and not 192 <= data[1] <= 223:
            self.arrived.setdefault(int.from_bytes(data[4:8], "big"), time.monotonic())
        self._back.sendto(data, self.peer)

    def _after(self, delay: float, deliver, data: bytes) -> None:
        if delay > 0:
            asyncio.get_running_loop().call_later(delay, deliver, data)
        else:
            deliver(data)
