"""Asterisk's AudioSocket: frames over TCP, which `realtime audiosocket` brings here as binary messages.

    a frame: kind u8, length u16 big-endian, then so many bytes
    Asterisk → us   0x01 UUID (16 bytes, once), 0x10 L16 8 kHz, 0x12 16 kHz, 0x13 24 kHz, 0x03 a key, 0x00 the end,
                    0xff an error
    us → Asterisk   0x10 L16 8 kHz (20 ms: 320 bytes) or 0x12 16 kHz; 0x00 hang up

Asterisk hands on what it gets as it comes and keeps no queue: we are the clock, a frame every 20 ms. TCP keeps no
frames together, so messages may hold parts of frames. The UUID is the one-time token: the dial plan asks our webhook
for it, with the line's secret.
Source: asterisk's include/asterisk/res_audiosocket.h, res/res_audiosocket.c; docs.asterisk.org, "AudioSocket".
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Final

from signaling.telephony.carrier import (
    Audio,
    CarrierError,
    Codec,
    Document,
    Event,
    Incoming,
    Message,
    RestCall,
    Secrets,
    Started,
    Stopped,
    Stream,
    Traits,
    WebRequest,
    keys_of,
    parameters_of,
    password_of,
    same,
    text_of,
)

HANGUP: Final = b"\x00\x00\x00"
_HEAD: Final = 3
_UUID, _KEY, _ERROR = 0x01, 0x03, 0xFF
_AUDIO: Final = {0x10: 8_000, 0x12: 16_000, 0x13: 24_000}
"""Kinds of frames by their rate; 0x11 (12 kHz) and from 0x14 on (32 kHz and more) are not understood."""
_TRAITS: Final = Traits(quantum_ms=20, fill_ms=10, mark_ms=None, flushes=False, paces=True)


FIRST_FRAME: Final = _HEAD + 16
"""Bytes of the frame that a connection begins with."""


def is_first_frame(data: bytes) -> bool:
    """Whether this is a UUID's frame."""
    return len(data) == FIRST_FRAME and data[:_HEAD] == bytes((_UUID, 0, 16))


class AudioSocketStream:
    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._kind = next(kind for kind, rate in _AUDIO.items() if rate == codec.rate)
        self._rest = b""
        self._started = False

    @property
    def traits(self) -> Traits:
        return _TRAITS

    def decode(self, message: Message) -> Sequence[Event]:
        if isinstance(message, str):
            raise CarrierError("a text message where AudioSocket frames belong")
        data = self._rest + message
        events: list[Event] = []
        at = 0
        while len(data) - at >= _HEAD:
            end = at + _HEAD + int.from_bytes(data[at + 1 : at + _HEAD])
            if end > len(data):
                break
            events += self._frame(data[at], data[at + _HEAD : end])
            at = end
        self._rest = data[at:]
        return events

    def _frame(self, kind: int, body: bytes) -> list[Event]:
        if kind == 0x00 or kind == _ERROR:
            return [Stopped("remote_closed" if kind == 0x00 else "failed")]
        if kind == _UUID:
            return self._start(body)
        if not self._started:
            raise CarrierError("a frame before the UUID")
        if kind == _KEY:
            return keys_of(body[:1].decode("latin-1"))
        if kind in _AUDIO:
            if kind != self._kind:
                raise CarrierError(f"audio at {_AUDIO[kind]} Hz where {self._codec.rate} was agreed")
            return [Audio(body)]
        return []

    def _start(self, body: bytes) -> list[Event]:
        if self._started:
            raise CarrierError("a second UUID")
        if len(body) != 16:
            raise CarrierError("a UUID that is not 16 bytes")
        self._started = True
        token = str(uuid.UUID(bytes=body))
        return [Started("", token[:8], self._codec, self._codec, token=token)]

    def audio(self, payload: bytes) -> Sequence[Message]:
        return (bytes((self._kind,)) + len(payload).to_bytes(2) + payload,)

    def flush(self) -> Message | None:
        return None  # nothing waits there

    def mark(self, name: str) -> Message | None:
        return None

    def hang_up(self) -> Message | None:
        return HANGUP


class AudioSocket:
    name = "audiosocket"
    rest_url: str | None = None
    announces = True
    signs_socket = True
    codecs: Sequence[Codec] = tuple(Codec("l16", rate) for rate in _AUDIO.values())

    def flaw(self, secrets: Secrets) -> str | None:
        return None

    def signed_webhook(self, request: WebRequest, secrets: Secrets) -> bool:
        """The secret as Bearer, as a password, or as the form's field `secret`, which a dial plan can send."""
        given = password_of(request.headers)
        if given is None:
            try:
                given = dict(request.form).get("secret", "")
            except CarrierError:
                return False
        return same(given, secrets.main)

    def signed_socket(self, request: WebRequest, secrets: Secrets) -> bool | None:
        given = password_of(request.headers)
        return None if given is None else same(given, secrets.main)

    def incoming(self, request: WebRequest) -> Incoming:
        form = dict(request.form)
        form.pop("secret", None)
        number, dialled = text_of(form.pop("number", "")), text_of(form.pop("dialled", ""))
        return Incoming("", number or None, dialled or None, parameters=parameters_of(form))

    def answer(self, socket_url: str, token: str, incoming: Incoming, codec: Codec | None) -> Document:
        return Document(token, "text/plain")

    def stream(self, codec: Codec | None, query: Mapping[str, str]) -> Stream:
        return AudioSocketStream(codec or self.codecs[0])

    def transfer(self, started: Started, target: str, secrets: Secrets, now: float) -> RestCall | None:
        return None  # the dial plan goes on after the hang-up
