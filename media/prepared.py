"""Speech that many calls are told in the same words and voice: encoded once, sent to each. Sans-I/O.

A `Prepared` gathers packets as the first call sends them; who comes later sends those, and encodes what is missing.
Its packets can only be decoded in order, from the first one on, or after packets of whatever kind from a packet that
looks at none before it: packet 0, and those at which another call went on. So a call sends them only from the
beginning and without a gap, and its own encoder is brought up to date before it goes on alone: a decoder that is
given packets which do not follow from its state makes a noise of them.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np

from media.audio import FRAME_OUT, Pcm

if TYPE_CHECKING:  # who keeps speech needs no codec
    from media.codec import Encoder

_SILENCE: Final[Pcm] = np.zeros(FRAME_OUT, np.int16)


class Prepared:
    """Speech in whole frames, of 480 samples each. It ends in silence."""

    __slots__ = ("_packets",)

    def __init__(self) -> None:
        self._packets: dict[Hashable, list[bytes]] = {}

    def packets(self, setting: Hashable) -> list[bytes]:
        """Of its first frames, as encoders of that `setting` made them."""
        return self._packets.setdefault(setting, [])


Source: TypeAlias = tuple[Prepared, int]
"""What a piece of sound is of, and the number of its first frame there."""


class SharingEncoder:
    """The encoder of one call, which encodes nothing that is prepared and was encoded before."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._next: Source | None = None
        """The frame that would continue what was sent last of something prepared."""
        self._unseen: Pcm | None = None
        """The frame sent last, when the encoder has not seen it."""

    @property
    def is_shared(self) -> bool:
        """What it makes of prepared frames serves other calls, and theirs this one."""
        return self._encoder.setting is not None

    def expect_loss(self, share: float) -> None:
        before = self._encoder.setting
        self._encoder.expect_loss(share)
        if self._encoder.setting != before:
            self._next = None

    def encode(self, frame: Pcm, source: Source | None) -> bytes:
        """One packet. `source`: what the frame is of, when that is prepared."""
        if source is None:
            self._next = None
            return self._own(frame)
        return self._shared(frame, source)

    def _shared(self, frame: Pcm, source: Source) -> bytes:
        prepared, number = source
        setting = self._encoder.setting
        if setting is None or (number and source != self._next):
            self._next = None
            return self._own(frame)
        self._next = prepared, number + 1
        packets = prepared.packets(setting)
        if number < len(packets):
            self._unseen = frame
            return packets[number]
        if number == 0:
            self._unseen = _SILENCE
        packets.append(self._own(frame))
        return packets[number]

    def _own(self, frame: Pcm) -> bytes:
        unseen, self._unseen = self._unseen, None
        return self._encoder.encode(frame) if unseen is None else self._encoder.encode_after(unseen, frame)
