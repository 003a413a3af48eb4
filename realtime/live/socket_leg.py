"""A leg over a WebSocket: the caller's audio comes in events, ours goes out in events, nothing is paced.

The other side plays what it gets, as with OpenAI: everything pushed counts as delivered, and what was
really heard the client says itself, by `conversation.item.truncate`. Writing is bounded: a client that
does not read is hung up on with reason `slow_reader`, and never makes the server hold its audio.
"""

from __future__ import annotations

import asyncio
import binascii
import time
from collections import deque
from collections.abc import Callable, Mapping
from enum import Enum

import numpy as np
import pybase64

from media import g711
from media.audio import RATE_IN, RATE_OUT, Pcm
from media.leg import Abilities, LegListener
from media.playout import Heard, Playout, PlayoutEvent, PlayoutEventKind
from media.prepared import Source
from media.resample import BlockResampler, Resampler

MAX_UNSENT_BYTES = 16 << 20
"""Text waiting for a client that does not read: about four minutes of speech in base64."""

MAX_APPEND_BYTES = 15 << 20
"""Audio in one event, as with OpenAI."""

PIECE = 1 << 16
"""Base64 characters decoded and resampled in one turn of the loop: a second of PCM, below a millisecond. Whole
quadruples, and whole samples."""

SLICE = 512
"""Samples handed on in one turn of the loop: one window of the speech detector, which judges one a turn. A
recording that comes whole must not run ahead of it."""


class AudioFormat(Enum):
    PCM = "audio/pcm"
    PCMU = "audio/pcmu"
    PCMA = "audio/pcma"

    @property
    def rate(self) -> int:
        return RATE_OUT if self is AudioFormat.PCM else 8000


class AudioError(ValueError):
    """Audio that is not base64, not whole samples, or too much of it."""


class Delivery(Playout):
    """The playout of a client that plays for itself: what is pushed has been delivered."""

    def __init__(self) -> None:
        super().__init__()
        self._delivered: dict[int, float] = {}
        self._over = 0
        """Generations up to this one are closed."""
        self._pending: deque[PlayoutEvent] = deque()
        self._empty_at = 0.0
        """When a client that plays what it is given as it comes will have played it all."""

    @property
    def speaking(self) -> int | None:
        return next(iter(self._delivered), None)

    @property
    def idle(self) -> bool:
        return not self._pending

    def push(self, generation: int, pcm: Pcm, source: Source | None = None) -> bool:
        if generation <= self._over:
            return False
        if generation not in self._delivered:
            self._delivered[generation] = 0.0
            self._note(PlayoutEventKind.STARTED, generation)
        self._delivered[generation] += len(pcm) * 1000 / RATE_OUT
        begins = max(self._empty_at, time.monotonic())
        self._empty_at = begins + len(pcm) / RATE_OUT
        if self.tap is not None:
            self.tap(pcm, begins)
        return True

    def finish(self, generation: int) -> None:
        if generation > self._over:
            self._note(PlayoutEventKind.DONE, generation)
            self._delivered.pop(generation, None)
            self._over = generation

    def cut(self, through: int | None = None) -> list[Heard]:
        heard = [Heard(generation, ms) for generation, ms in self._delivered.items()]
        self._over = max([self._over, through or 0, *self._delivered])
        self._delivered.clear()
        self._pending.clear()
        self.stopped()
        return heard

    def stopped(self) -> None:
        """The client plays nothing any more of what it was given."""
        self._empty_at = time.monotonic()
        if self.untap is not None:
            self.untap(self._empty_at)

    def heard_ms(self, generation: int) -> float:
        return self._delivered.get(generation, 0.0)

    def next_frame(self, now: float) -> tuple[Pcm | None, list[PlayoutEvent]]:
        return None, []

    def _note(self, kind: PlayoutEventKind, generation: int) -> None:
        heard = self._delivered.get(generation, 0.0)
        self._pending.append(PlayoutEvent(kind, generation, heard, time.monotonic()))

    def tell(self, to: Callable[[PlayoutEvent], None]) -> None:
        while self._pending:
            to(self._pending.popleft())


class SocketLeg:
    """`media.leg.Leg`. The owner reads the socket and calls `hear`; it writes what `unsent` gives."""

    def __init__(self) -> None:
        self._listener: LegListener | None = None
        self._playout = Delivery()
        self._unsent: deque[str] = deque()
        self._unsent_bytes = 0
        self._news = asyncio.Event()
        self._closed: str | None = None
        self._inbound = AudioFormat.PCM
        self._outbound = AudioFormat.PCM
        self._from_caller = BlockResampler(RATE_OUT, RATE_IN)
        self._to_caller: Resampler | None = None
        self._bytes_in = self._bytes_out = self._messages_out = 0

    # --- media.leg.Leg ------------------------------------------------------------------------

    @property
    def abilities(self) -> Abilities:
        return Abilities(text=True, plays=False)

    @property
    def playout(self) -> Playout:
        return self._playout

    def attach(self, listener: LegListener) -> None:
        self._listener = listener

    def send_text(self, text: str) -> None:
        if self._closed is not None:
            return
        self._unsent.append(text)
        self._unsent_bytes += len(text)
        self._messages_out += 1
        self._bytes_out += len(text)
        self._news.set()
        if self._unsent_bytes > MAX_UNSENT_BYTES:
            self._end("slow_reader")

    def wake(self) -> None:
        self._playout.tell(self._on_playout)

    def stats(self) -> Mapping[str, float]:
        return {
            "texts_sent": self._messages_out,
            "text_bytes_sent": self._bytes_out,
            "audio_bytes_received": self._bytes_in,
        }

    async def close(self, reason: str = "hangup") -> None:
        self._end(reason)

    # --- for the socket's owner ---------------------------------------------------------------

    @property
    def closed(self) -> str | None:
        return self._closed

    def open(self) -> None:
        """The socket is up."""
        if self._listener is not None:
            self._listener.on_text_open()
            self._listener.on_open()

    def stopped(self) -> None:
        """The client says that it plays nothing any more of what it was given."""
        self._playout.stopped()

    def use_formats(self, inbound: AudioFormat, outbound: AudioFormat) -> None:
        if inbound is not self._inbound:
            self._inbound = inbound
            self._from_caller = BlockResampler(inbound.rate, RATE_IN)
        if outbound is not self._outbound:
            self._outbound = outbound
            self._to_caller = None if outbound is AudioFormat.PCM else Resampler(RATE_OUT, outbound.rate)

    async def hear(self, audio: str) -> None:
        """One appended piece of audio, base64 in the negotiated format. Raises `AudioError`; then none was heard.

        Lets the loop turn while it works: a whole file may come at once.
        """
        if len(audio) <= PIECE:
            pcm = self._from_caller.push(decode(audio, self._inbound))
            self._bytes_in += len(audio)
            await self._hand_on(pcm)
        else:
            await self._hear_long(audio)

    async def _hear_long(self, audio: str) -> None:
        decoded = await decode_long(audio, self._inbound)
        self._bytes_in += len(audio)
        for place, samples in enumerate(decoded):
            await self._hand_on(self._from_caller.push(samples))
            if place + 1 < len(decoded):
                await asyncio.sleep(0)

    async def _hand_on(self, pcm: Pcm) -> None:
        for start in range(0, len(pcm), SLICE):
            if self._listener is None or self._closed is not None:
                return
            self._listener.on_audio(pcm[start : start + SLICE], time.monotonic())
            if start + SLICE < len(pcm):
                await asyncio.sleep(0)

    def encode(self, pcm: Pcm) -> str:
        """24 kHz samples as the caller wants them, in base64."""
        if self._to_caller is not None:
            pcm = self._to_caller.push(pcm)
        match self._outbound:
            case AudioFormat.PCM:
                data = pcm.astype("<i2", copy=False).tobytes()
            case AudioFormat.PCMU:
                data = g711.ulaw_encode(pcm)
            case AudioFormat.PCMA:
                data = g711.alaw_encode(pcm)
        return pybase64.b64encode_as_string(data)

    async def unsent(self) -> list[str]:
        """What is to be written next, in order; empty when the leg is closed and all was given."""
        while not self._unsent and self._closed is None:
            self._news.clear()
            await self._news.wait()
        batch = list(self._unsent)
        self._unsent.clear()
        return batch

    def written(self, text: str) -> None:
        """The socket took `text`: it no longer counts."""
        self._unsent_bytes -= len(text)

    def _on_playout(self, event: PlayoutEvent) -> None:
        if self._listener is not None:
            self._listener.on_playout(event)

    def _end(self, reason: str) -> None:
        if self._closed is not None:
            return
        self._closed = reason
        if reason == "slow_reader":
            self._unsent.clear()
        self._news.set()
        if self._listener is not None:
            self._listener.on_closed(reason)
        self._listener = None  # it refers to the leg; references alone are to free what ended


async def decode_long(audio: str, form: AudioFormat) -> list[Pcm]:
    """As `decode`, in pieces, with a turn of the loop between them. All of it, or `AudioError`."""
    if len(audio) * 3 // 4 > MAX_APPEND_BYTES:
        raise AudioError(f"One event holds at most {MAX_APPEND_BYTES >> 20} MiB of audio.")
    if audio.find("=", 0, -2) >= 0:
        raise AudioError("The audio is not base64.")
    decoded: list[Pcm] = []
    for start in range(0, len(audio), PIECE):
        decoded.append(decode(audio[start : start + PIECE], form))
        if start + PIECE < len(audio):
            await asyncio.sleep(0)
    return decoded


def decode(audio: str, form: AudioFormat) -> Pcm:
    """Base64 of `form` to samples at its rate. Raises `AudioError`."""
    try:
        data = pybase64.b64decode(audio, validate=True)
    except (binascii.Error, ValueError) as error:
        raise AudioError("The audio is not base64.") from error
    if form is AudioFormat.PCMU:
        return g711.ulaw_decode(data)
    if form is AudioFormat.PCMA:
        return g711.alaw_decode(data)
    if len(data) % 2:
        raise AudioError("The audio is not whole 16-bit samples.")
    return np.frombuffer(data, "<i2").astype(np.int16, copy=False)
