"""A telephone call as a leg: a carrier's socket on one side, audio at our rates and a playout on the other.

The owner reads the socket and gives every message to `take`; it writes what `unsent` gives. Audio goes out
ahead of what is heard, as the carrier's traits say, on the clock that all calls share: no task a frame. A
cut takes back at once what was not written yet, then tells the carrier to throw away what it holds.

    OPEN --close, stop, too slow, too fast, silence, a message nobody would send--> CLOSED
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import numpy as np

from media.audio import FRAME_OUT, Pcm
from media.leg import Abilities, LegListener
from media.pacer import Pacer
from media.playout import Playout, PlayoutEvent
from media.prepared import Source
from signaling.telephony.carrier import (
    Audio,
    CarrierError,
    Hold,
    Key,
    Marked,
    Message,
    Reply,
    Started,
    Stopped,
    Stream,
    check_size,
)
from signaling.telephony.keys import tones
from signaling.telephony.playout import CarrierPlayout
from signaling.telephony.sound import FromCarrier, ToCarrier

log = logging.getLogger("signaling.telephony")

MAX_UNSENT_BYTES = 256 << 10
"""Waiting for a carrier that does not read: a dozen seconds of audio."""
MAX_AHEAD_S = 10.0
"""Seconds of audio by which a carrier may be ahead of the clock: it was held up, and catches up."""
MAX_GAP_MS = 1000
"""Audio that was lost is made up for with silence, up to so much at once."""
MAX_TONES_MS = 20_000
_GAP_MS = 10
_CHUNK = 1920
"""Samples handed on at once: the listener's contract."""
_QUIET = 300
"""Peak of a caller who says nothing: -40 dBFS. Lines hum."""
_FRAME_MS = 20
_AFTER_DUE_S = 0.02
"""Seconds after the moment at which more is due that the carrier's queue is looked at: the middle between two polls."""


def _nothing() -> None:
    """A cut after the end: there is nobody to be told."""


@dataclass(frozen=True, slots=True)
class Patience:
    """`inactivity_s`: without any message the carrier is gone. `silence_s`: nobody has said anything."""

    inactivity_s: float = 15.0
    silence_s: float | None = None


DEFAULT_PATIENCE = Patience()


class CarrierLeg:
    """`media.leg.Leg` over a stream whose handshake is complete (`started`)."""

    def __init__(
        self,
        stream: Stream,
        started: Started,
        pacer: Pacer,
        *,
        patience: Patience = DEFAULT_PATIENCE,
        transfer: Callable[[str], Awaitable[None]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._clock = clock
        self._traits = stream.traits
        self._pacer = pacer
        self._patience = patience
        self._transfer = transfer
        self._listener: LegListener | None = None
        self._from = FromCarrier(started.inbound)
        self._to = ToCarrier(started.outbound, stream.traits.frame_bytes)
        self._inbound = started.inbound
        self._playout = CarrierPlayout(
            marks=self._traits.mark_ms is not None, flushes=self._traits.flushes, clock=clock
        )
        self._playout.on_cut = self._flush
        self._unsent: deque[tuple[Message, bool]] = deque()
        """Messages, and whether a flush takes them back."""
        self._unsent_bytes = 0
        self._news = asyncio.Event()
        self._closed: str | None = None
        self._tones: deque[Pcm] = deque()
        """20 ms each, to be sent before anything else."""
        self._is_ticked = False
        self._is_held = False
        self._opened_at = self._heard_at = self._spoke_at = 0.0
        self._expected_ms: int | None = None
        self._arrived_ms = 0.0
        self._latest: Pcm = np.zeros(0, np.int16)
        self._messages_in = self._messages_out = self._bytes_in = self._bytes_out = self._lost_ms = 0

    # --- media.leg.Leg ------------------------------------------------------------------------

    @property
    def abilities(self) -> Abilities:
        return Abilities(dtmf=True, marks=self._traits.mark_ms is not None, transfer=self._transfer is not None)

    @property
    def playout(self) -> Playout:
        return self._playout

    def attach(self, listener: LegListener) -> None:
        self._listener = listener

    def send_text(self, text: str) -> None:
        """Nobody reads texts on a telephone; sidebands get them from the session."""

    def send_keys(self, digits: str) -> None:
        """Press keys towards the other side, as tones in the audio, before what is still to be said.

        ValueError for anything but `0-9*#ABCD` and `,` (a pause of half a second), and for too many at once.
        """
        pcm = tones(digits)
        if len(self._tones) * _FRAME_MS > MAX_TONES_MS:
            raise ValueError("too many keys are waiting to be pressed")
        self._tones.extend(pcm[start : start + FRAME_OUT] for start in range(0, len(pcm), FRAME_OUT))
        self.wake()

    async def transfer(self, target: str) -> None:
        """Connect the caller with `target` and leave the call. Raises `CarrierError` when the carrier does not."""
        if self._transfer is None:
            raise CarrierError("this carrier cannot transfer a call")
        await self._transfer(target)

    def wake(self) -> None:
        if self._closed is None:
            now, before = self._clock(), self._bytes_out
            self._send(now)
            self._keep_ticking()
            if self._is_ticked and not self._traits.paces and self._bytes_out != before:
                # Polls that fall where more is due would send now a poll earlier, now a poll later.
                due_s = (self._playout.lead_ms(now) - self._traits.fill_ms) / 1000
                self._pacer.poll(self, now + due_s + _AFTER_DUE_S)

    def stats(self) -> Mapping[str, float]:
        return {
            "messages_received": self._messages_in,
            "bytes_received": self._bytes_in,
            "messages_sent": self._messages_out,
            "bytes_sent": self._bytes_out,
            "lost_ms": self._lost_ms,
        }

    async def close(self, reason: str = "hangup") -> None:
        self._end(reason)

    # --- for the socket's owner ---------------------------------------------------------------

    @property
    def closed(self) -> str | None:
        return self._closed

    def open(self) -> None:
        """The call is up: audio flows."""
        self._opened_at = self._heard_at = self._spoke_at = self._clock()
        self._pacer.watch(self)
        if self._listener is not None:
            self._listener.on_open()

    def take(self, message: Message) -> None:
        """One message of the carrier's. Whatever it holds, nothing is raised."""
        if self._closed is not None:
            return
        self._heard_at = now = self._clock()
        self._messages_in += 1
        self._bytes_in += len(message)
        try:
            check_size(message)
            events = self._stream.decode(message)
        except CarrierError as error:
            log.warning("a carrier's message was not understood and its call ended: %s", error)
            self._end("protocol_error")
            return
        for event in events:
            match event:
                case Audio():
                    self._hear(event, now)
                case Marked():
                    self._playout.marked(event.name, now)
                    self._told(now)
                case Key():
                    if self._listener is not None:
                        self._listener.on_key(event.key)
                case Reply():
                    self._write(event.message)
                case Hold():
                    self._is_held = event.on
                    self._keep_ticking()
                case Stopped():
                    self._end(event.reason)
                case Started():
                    pass  # the stream refuses a second one that means something
            if self._closed is not None:
                return

    async def unsent(self) -> Message | None:
        """What is to be written next; None when the leg is closed and all was given."""
        while not self._unsent:
            if self._closed is not None:
                return None
            self._news.clear()
            await self._news.wait()
        message, _ = self._unsent.popleft()
        self._unsent_bytes -= len(message)
        return message

    # --- hearing ------------------------------------------------------------------------------

    def _hear(self, audio: Audio, now: float) -> None:
        ms = self._inbound.ms(audio.payload)
        self._arrived_ms += ms
        if self._arrived_ms / 1000 - (now - self._opened_at) > MAX_AHEAD_S:
            self._end("too_fast")
            return
        if audio.at_ms is not None:
            missing = 0 if self._expected_ms is None else audio.at_ms - self._expected_ms
            if missing > _GAP_MS:
                self._lost_ms += missing
                self._hand_on(self._from.silence(min(missing, MAX_GAP_MS)), now)
            self._expected_ms = audio.at_ms + round(ms)
        self._latest = self._from.push(audio.payload)
        self._hand_on(self._latest, now)

    def _hand_on(self, pcm: Pcm, now: float) -> None:
        if self._listener is None:
            return
        if len(pcm) <= _CHUNK:
            if len(pcm):
                self._listener.on_audio(pcm, now)
            return
        for start in range(0, len(pcm), _CHUNK):
            if self._closed is None:
                self._listener.on_audio(pcm[start : start + _CHUNK], now)

    # --- speaking -----------------------------------------------------------------------------

    def _send(self, now: float) -> None:
        """As much as the carrier should have ahead."""
        playout, traits = self._playout, self._traits
        happened: list[PlayoutEvent] = []
        while not self._is_held and playout.lead_ms(now) < traits.fill_ms:
            frames: list[Pcm] = []
            sources: list[Source | None] = []
            while len(frames) * _FRAME_MS < traits.quantum_ms:
                if self._tones:
                    frame: Pcm | None = playout.beside(self._tones.popleft(), now)
                    source = None
                else:
                    frame, events = playout.next_frame(now)
                    source = playout.source
                    happened += events
                if frame is None:
                    break
                frames.append(frame)
                sources.append(source)
            if frames:
                self._put(self._to.push(frames, sources))
            if playout.has_ended:
                self._put(self._to.flush())
            self._ask(now)
            if len(frames) * _FRAME_MS < traits.quantum_ms:
                break
        self._tell(happened)
        self._told(now)

    def _put(self, payload: bytes) -> None:
        if payload:
            for message in self._stream.audio(payload):
                self._write(message, is_audio=True)

    def _ask(self, now: float) -> None:
        if self._traits.mark_ms is None:
            return
        name = self._playout.ask(now, self._traits.mark_ms)
        message = None if name is None else self._stream.mark(name)
        if message is not None:
            self._write(message, is_audio=True)

    def _told(self, now: float) -> None:
        self._tell(self._playout.heard(now))

    def _tell(self, events: list[PlayoutEvent]) -> None:
        for event in events:
            self._spoke_at = event.at
            if self._listener is not None and self._closed is None:
                self._listener.on_playout(event)

    def _flush(self) -> None:
        """Nothing of what was cut is written any more, and the carrier forgets what it has of it."""
        self._unsent = deque(entry for entry in self._unsent if not entry[1])
        self._unsent_bytes = sum(len(message) for message, _ in self._unsent)
        self._to.reset()
        message = self._stream.flush()
        if message is not None:
            self._write(message)

    def _write(self, message: Message, *, is_audio: bool = False) -> None:
        if self._closed is not None:
            return
        self._unsent.append((message, is_audio))
        self._unsent_bytes += len(message)
        self._messages_out += 1
        self._bytes_out += len(message)
        self._news.set()
        if self._unsent_bytes > MAX_UNSENT_BYTES:
            self._end("slow_reader")

    # --- the clock ----------------------------------------------------------------------------

    def _keep_ticking(self) -> None:
        """Ticks are needed while something is to be said, or not known to have been heard."""
        playout = self._playout
        is_quiet = playout.idle and playout.speaking is None and not playout.is_waiting and not self._tones
        if self._closed is not None or is_quiet:
            if self._is_ticked:
                self._is_ticked = False
                self._pacer.remove(self)
                self._pacer.unpoll(self)
        elif not self._is_ticked:
            self._is_ticked = True
            if self._traits.paces:
                self._pacer.add(self, self._clock())
            else:
                self._pacer.poll(self)

    def on_tick(self, now: float) -> None:
        """Every 20 ms, where the carrier keeps no queue."""
        self.on_poll(now)

    def on_poll(self, now: float) -> None:
        """Every 40 ms while there is something to say."""
        self._send(now)
        self._keep_ticking()

    def on_watch(self, now: float) -> None:
        """Four times a second."""
        if self._latest.size and int(np.abs(self._latest).max()) > _QUIET:
            self._spoke_at = now
        if self._playout.lead_ms(now) > 0 or self._playout.speaking is not None:
            self._spoke_at = now
        self._latest = self._latest[:0]
        if now - self._heard_at > self._patience.inactivity_s:
            self._end("inactivity")
        elif self._patience.silence_s is not None and now - self._spoke_at > self._patience.silence_s:
            self._end("silence")

    # --- the end ------------------------------------------------------------------------------

    def _end(self, reason: str) -> None:
        if self._closed is not None:
            return
        message = self._stream.hang_up()
        self._unsent = deque(entry for entry in self._unsent if not entry[1])
        if reason in ("slow_reader", "remote_closed"):
            self._unsent.clear()
        elif message is not None:
            self._unsent.append((message, False))
        self._closed = reason
        self._keep_ticking()
        self._pacer.unwatch(self)
        self._news.set()
        if self._listener is not None:
            self._listener.on_closed(reason)
        # Nothing refers back from here on, so that references alone free what ended.
        self._listener = None
        self._playout.on_cut = _nothing
