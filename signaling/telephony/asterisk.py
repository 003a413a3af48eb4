"""Asterisk's chan_websocket (20.16, 21.11, 22.6, 23.0 and later): Asterisk dials us. Binary media, text control.

    Asterisk → us   MEDIA_START, then binary audio; DTMF_END, MEDIA_MARK_PROCESSED, MEDIA_XOFF, MEDIA_XON
    us → Asterisk   binary audio; MARK_MEDIA, FLUSH_MEDIA, HANGUP

Control messages are plain text (`EVENT key:value …`) or JSON, as MEDIA_START shows. Asterisk cuts what it is given
into frames of `optimal_frame_size` and drops a part of one, so we send whole frames; it keeps up to 1000 of them, and
FLUSH_MEDIA drops marks without a word. The socket proves itself by the user name and password of
websocket_client.conf (HTTP Basic; the password is the line's secret): there is no webhook. What the dial plan puts
into the URI with `v(number=…,dialled=…)` comes as the query.
Source: asterisk's channels/chan_websocket.c; docs.asterisk.org, "WebSocket".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import orjson

from signaling.telephony.carrier import (
    PCMU,
    Audio,
    CarrierError,
    Codec,
    Document,
    Event,
    Hold,
    Incoming,
    Marked,
    Message,
    RestCall,
    Secrets,
    Started,
    Stream,
    Traits,
    WebRequest,
    count_of,
    keys_of,
    parameters_of,
    parse_json,
    password_of,
    same,
    text_of,
)

MAX_FRAME = 65_500
"""Bytes; a larger message closes the call."""
_SUBPROTOCOL: Final = "media"
_FORMATS: Final[Mapping[str, Codec]] = {
    "ulaw": PCMU,
    "alaw": Codec("pcma"),
    "slin": Codec("l16", 8_000),
    "slin16": Codec("l16", 16_000),
    "slin24": Codec("l16", 24_000),
}


class AsteriskStream:
    def __init__(self, query: Mapping[str, str]) -> None:
        self._query = parameters_of(dict(query))
        self._traits = Traits(subprotocol=_SUBPROTOCOL)
        self._started = False
        self._is_json = False

    @property
    def traits(self) -> Traits:
        return self._traits

    def decode(self, message: Message) -> Sequence[Event]:
        if isinstance(message, bytes):
            if not self._started:
                raise CarrierError("audio before MEDIA_START")
            return [Audio(message)]
        event, fields = _parse(message)
        if event == "MEDIA_START":
            self._is_json = message.lstrip().startswith("{")
            return self._start(fields)
        if event == "DTMF_END":
            return keys_of(fields.get("digit"))
        if event == "MEDIA_MARK_PROCESSED":
            return [Marked(text_of(fields.get("correlation_id")))]
        if event in ("MEDIA_XOFF", "MEDIA_XON"):
            return [Hold(event == "MEDIA_XOFF")]
        return []

    def _start(self, fields: Mapping[str, object]) -> Sequence[Event]:
        if self._started:
            raise CarrierError("a second MEDIA_START")
        form = text_of(fields.get("format"))
        codec = _FORMATS.get(form)
        if codec is None:
            raise CarrierError(f"audio that is {form}: {', '.join(_FORMATS)} are understood")
        size = count_of(fields.get("optimal_frame_size")) or codec.frame_bytes(20)
        if size > MAX_FRAME // 10:
            raise CarrierError(f"frames of {size} bytes")
        names = (text_of(fields.get(name)) for name in ("channel_id", "channel", "connection_id"))
        call_id = next((name for name in names if name), "")
        if not call_id:
            raise CarrierError("MEDIA_START without channel_id, channel and connection_id")
        self._started = True
        self._traits = Traits(frame_bytes=size, subprotocol=_SUBPROTOCOL)
        parameters = {**parameters_of(fields.get("channel_variables")), **self._query}
        number, dialled = parameters.pop("number", None), parameters.pop("dialled", None)
        stream_id = text_of(fields.get("connection_id")) or call_id
        return [Started(call_id, stream_id, codec, codec, number=number, dialled=dialled, parameters=parameters)]

    def audio(self, payload: bytes) -> Sequence[Message]:
        return (payload,)

    def flush(self) -> Message:
        return self._command("FLUSH_MEDIA")

    def mark(self, name: str) -> Message:
        return self._command("MARK_MEDIA", name)

    def hang_up(self) -> Message | None:
        return self._command("HANGUP")

    def _command(self, command: str, id_: str = "") -> str:
        if not self._is_json:
            return f"{command} {id_}".rstrip()
        return orjson.dumps({"command": command, **({"correlation_id": id_} if id_ else {})}).decode()


def _parse(message: str) -> tuple[str, Mapping[str, object]]:
    """`EVENT key:value key:value`, or JSON; a mark's name stands without a key."""
    if message.lstrip().startswith("{"):
        data = parse_json(message)
        return text_of(data.get("event")), data
    event, *words = message.split(" ") if message else [""]
    fields: dict[str, object] = {}
    for word in words[:32]:
        key, colon, value = word.partition(":")
        fields[key if colon else "correlation_id"] = value if colon else word
    return event, fields


class Asterisk:
    name = "asterisk"
    rest_url: str | None = None
    announces = False
    signs_socket = True
    codecs: Sequence[Codec] = ()

    def flaw(self, secrets: Secrets) -> str | None:
        return None

    def signed_webhook(self, request: WebRequest, secrets: Secrets) -> bool:
        return self.signed_socket(request, secrets) is True

    def signed_socket(self, request: WebRequest, secrets: Secrets) -> bool | None:
        given = password_of(request.headers)
        return None if given is None else same(given, secrets.main)

    def incoming(self, request: WebRequest) -> Incoming:
        raise CarrierError("chan_websocket has no webhook")

    def answer(self, socket_url: str, token: str, incoming: Incoming, codec: Codec | None) -> Document:
        raise CarrierError("chan_websocket has no webhook")

    def stream(self, codec: Codec | None, query: Mapping[str, str]) -> Stream:
        return AsteriskStream(query)

    def transfer(self, started: Started, target: str, secrets: Secrets, now: float) -> RestCall | None:
        return None  # the dial plan goes on after HANGUP
