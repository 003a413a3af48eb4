"""The seam between sound and conversation: one caller, whatever the wire.

A `Leg` is what a call is held over: audio in, a playout, text in and out, hang-up. `media.peer` is
the WebRTC one; sockets and telephone carriers bring their own. A leg never knows what a
conversation is: it tells its one `LegListener` what happened, synchronously and on the event loop,
and the listener must return within a millisecond or so.

Contract:
- `attach` is called once, before the leg is answered. No callback comes before it.
- `on_open` comes once, when audio can flow; `on_text_open` once, when `send_text` reaches the other side.
- `on_audio` chunks are consecutive in media time: gaps on the wire have been concealed or filled
  with silence, up to a bound; after a longer pause `on_audio` simply resumes.
- `on_closed` comes exactly once, whoever ended the leg, and nothing comes after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from media.audio import Pcm
from media.playout import Playout, PlayoutEvent


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a kind of leg can do besides audio both ways."""

    text: bool = False
    dtmf: bool = False
    marks: bool = False
    transfer: bool = False
    plays: bool = True
    """False: the other side's own program plays what it is given, as fast as it is made, and says what was heard."""


class LegListener(Protocol):
    """What a leg tells; every method is called on the event loop and must not block."""

    def on_open(self) -> None:
        """Audio can flow both ways."""

    def on_text_open(self) -> None:
        """The other side reads what `send_text` sends."""

    def on_audio(self, pcm: Pcm, arrived_at: float) -> None:
        """The next piece of the caller's audio.

        `pcm`: 16 kHz mono int16, 1 to 1,920 samples. `arrived_at`: `time.monotonic()` seconds at
        which the packet that ends this piece arrived (for concealed audio: when it was due).
        """

    def on_text(self, text: str) -> None:
        """One message from the other side, at most 256 KiB. Not parsed."""

    def on_key(self, key: str) -> None:
        """The caller pressed a key of the telephone, one of `0-9*#ABCD`; told once a press."""

    def on_text_refused(self, code: str, detail: str) -> None:
        """A message was dropped at the wire: `too_large`, `too_many`, `not_text`."""

    def on_playout(self, event: PlayoutEvent) -> None:
        """The playout started, ran low, or ended an utterance (see `media.playout`)."""

    def on_closed(self, reason: str) -> None:
        """The leg is gone: `hangup`, `remote_closed`, `connect_timeout`, `inactivity`, `failed`, …"""


class Leg(Protocol):
    """One caller. Made by `signaling`, driven by a session."""

    @property
    def abilities(self) -> Abilities: ...

    @property
    def playout(self) -> Playout:
        """What is to be said on this leg; the leg's clock drains it."""

    def attach(self, listener: LegListener) -> None: ...

    def send_text(self, text: str) -> None:
        """Queue one message, in order. Bounded: a reader that never reads ends the leg."""

    def wake(self) -> None:
        """Sound was pushed into an idle playout: the first frame leaves at once. Cheap, may be repeated."""

    def stats(self) -> Mapping[str, float]:
        """Packets and bytes both ways, loss, jitter (ms), round trip (ms): names as Prometheus suffixes."""

    async def close(self, reason: str = "hangup") -> None:
        """Hang up. Idempotent; `on_closed` has been called when this returns."""


@runtime_checkable
class SendsKeys(Protocol):
    """A leg that can press keys of a telephone towards the other side."""

    def send_keys(self, digits: str) -> None:
        """`0-9*#ABCD`, and `,` for a pause of half a second. ValueError for anything else."""


@runtime_checkable
class Transfers(Protocol):
    """A leg whose carrier can pass the call on; whether it does is in its `abilities`."""

    async def transfer(self, target: str) -> None:
        """To a number or SIP address, as the carrier writes them. Raises when the carrier refuses."""
