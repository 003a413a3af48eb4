"""Telnyx: TeXML `<Connect><Stream>` with RTP payloads both ways, JSON text.

    Telnyx → us   connected, start, media, dtmf, mark, error, stop     snake_case; stream_id at the top level
    us → Telnyx   media, mark, clear                                   without a stream id

Frames may come out of order: they are sorted by `chunk`, and one that is missing is waited for as long as three
later ones take. What we hear and what we send have codecs of their own: `start.media_format`, and the document's
`bidirectionalCodec`. L16 is little-endian. Webhooks are signed with Ed25519 over
`timestamp|body` (telnyx-signature-ed25519, telnyx-timestamp, at most five minutes old); sockets are not signed:
the token is what guards them.
Source: developers.telnyx.com, "Stream call media over WebSocket", TeXML "Stream"; telnyx-python's webhook_verification.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pybase64 import b64decode, b64encode_as_string

from signaling.telephony.carrier import (
    CALL,
    PCMU,
    TOKEN,
    Audio,
    CarrierError,
    Codec,
    Document,
    Event,
    Incoming,
    Marked,
    Message,
    RestCall,
    Secrets,
    Started,
    Stopped,
    Stream,
    Traits,
    WebRequest,
    count_of,
    keys_of,
    member,
    parameters_of,
    parse_json,
    payload_of,
    text_of,
)
from signaling.telephony.twilio import dial, incoming_form, twiml

TOLERANCE_S = 300
"""Age of a signature, as in Telnyx's own library."""
PATIENCE = 3
"""Later frames that are held while an earlier one is missing: 60 ms."""
RESTART = 250
"""A jump by more frames than this is a new count, not a loss."""
_TRAITS = Traits()
_CLEAR = '{"event":"clear"}'


class TelnyxStream:
    def __init__(self, codec: Codec) -> None:
        self._outbound = codec
        self._started = False
        self._inbound = PCMU
        self._ms = 20.0
        self._next: int | None = None
        self._position_ms = 0.0
        self._held: dict[int, bytes] = {}

    @property
    def traits(self) -> Traits:
        return _TRAITS

    def decode(self, message: Message) -> Sequence[Event]:
        data = parse_json(message)
        event = data.get("event")
        if event == "media":
            return self._media(member(data, "media"))
        if event == "mark":
            return [Marked(text_of(member(data, "mark").get("name")))]
        if event == "dtmf":
            return keys_of(member(data, "dtmf").get("digit"))
        if event == "stop":
            return [*self._release(0), Stopped()]
        return self._start(data) if event == "start" else []

    def _start(self, data: Mapping[str, object]) -> Sequence[Event]:
        start = member(data, "start")
        stream_id, call_id = text_of(data.get("stream_id")), text_of(start.get("call_control_id"))
        if self._started:
            raise CarrierError("a second start")
        if not stream_id or not call_id:
            raise CarrierError("start without stream_id and call_control_id")
        self._started = True
        inbound = _codec(member(start, "media_format"))
        self._inbound = inbound
        parameters = parameters_of(start.get("custom_parameters"))
        token, call_id = parameters.pop(TOKEN, ""), parameters.pop(CALL, call_id)
        number, dialled = text_of(start.get("from")) or None, text_of(start.get("to")) or None
        return [Started(call_id, stream_id, inbound, self._outbound, token, number, dialled, parameters=parameters)]

    def _media(self, media: Mapping[str, object]) -> Sequence[Event]:
        if not self._started:
            raise CarrierError("audio before start")
        if media.get("track", "inbound") not in ("inbound", "inbound_track"):
            return []
        payload, chunk = payload_of(media.get("payload")), count_of(media.get("chunk"))
        if chunk is None:
            return [Audio(payload)]
        if self._next is None or abs(chunk - self._next) > RESTART:
            self._held.clear()
            self._next = chunk
        if chunk < self._next:
            return []  # it was given up
        self._held[chunk] = payload
        return self._release(PATIENCE)

    def _release(self, patience: int) -> list[Event]:
        """What is next in line; over a gap once `patience` later frames are there."""
        events: list[Event] = []
        while self._held and self._next is not None:
            payload = self._held.pop(self._next, None)
            if payload is not None:
                self._ms = self._inbound.ms(payload)
                events.append(Audio(payload, round(self._position_ms)))
            elif len(self._held) <= patience and patience:
                break
            self._next += 1
            self._position_ms += self._ms
        return events

    def audio(self, payload: bytes) -> Sequence[Message]:
        return (f'{{"event":"media","media":{{"payload":"{b64encode_as_string(payload)}"}}}}',)

    def flush(self) -> Message:
        return _CLEAR

    def mark(self, name: str) -> Message:
        return orjson.dumps({"event": "mark", "mark": {"name": name}}).decode()

    def hang_up(self) -> Message | None:
        return None  # closing the socket ends <Connect>; the document has nothing after it


class Telnyx:
    name = "telnyx"
    rest_url: str | None = "https://api.telnyx.com"
    announces = True
    signs_socket = False
    codecs: Sequence[Codec] = (PCMU, Codec("pcma"), *(Codec("l16", rate) for rate in (8_000, 16_000, 24_000)))

    def flaw(self, secrets: Secrets) -> str | None:
        try:
            _public_key(secrets.main)
        except ValueError:
            return "secret is not Telnyx's public key: 32 bytes in base64"
        return None

    def signed_webhook(self, request: WebRequest, secrets: Secrets) -> bool:
        """`secrets.main`: the account's public key, base64."""
        timestamp = request.headers.get("telnyx-timestamp", "")
        sent_at = count_of(timestamp)
        if sent_at is None or abs(request.now - sent_at) > TOLERANCE_S:
            return False
        try:
            key = _public_key(secrets.main)
            signature = b64decode(request.headers.get("telnyx-signature-ed25519", ""), validate=True)
            key.verify(signature, timestamp.encode() + b"|" + request.body)
        except (InvalidSignature, binascii.Error, ValueError):
            return False
        return True

    def signed_socket(self, request: WebRequest, secrets: Secrets) -> bool | None:
        return None

    def incoming(self, request: WebRequest) -> Incoming:
        return incoming_form(request)

    def answer(self, socket_url: str, token: str, incoming: Incoming, codec: Codec | None) -> Document:
        """What we hear can be transcoded between the two laws only; else it is what the call has."""
        ours = codec or self.codecs[0]
        attributes = (
            f' track="inbound_track" bidirectionalMode="rtp" bidirectionalCodec="{ours.encoding.upper()}"'
            f' bidirectionalSamplingRate="{ours.rate}"'
        )
        if ours.encoding != "l16":
            attributes += f' codec="{ours.encoding.upper()}"'
        return twiml(socket_url, {TOKEN: token, CALL: incoming.call_id}, attributes)

    def stream(self, codec: Codec | None, query: Mapping[str, str]) -> Stream:
        return TelnyxStream(codec or PCMU)

    def transfer(self, started: Started, target: str, secrets: Secrets, now: float) -> RestCall | None:
        """A call under TeXML gets other TeXML."""
        if secrets.api_key is None or not started.account:
            return None
        account, call = quote(started.account, safe=""), quote(started.call_id, safe="")
        return RestCall(
            "POST",
            f"/v2/texml/Accounts/{account}/Calls/{call}",
            {"Authorization": f"Bearer {secrets.api_key}", "Content-Type": "application/json"},
            orjson.dumps({"Texml": dial(target)}),
        )


def _public_key(text: str) -> Ed25519PublicKey:
    """Raises ValueError."""
    return Ed25519PublicKey.from_public_bytes(b64decode(text, validate=True))


def _codec(form: Mapping[str, object]) -> Codec:
    encoding, rate = text_of(form.get("encoding")).upper(), count_of(form.get("sample_rate"))
    match encoding:
        case "PCMU" | "":
            return PCMU
        case "PCMA":
            return Codec("pcma")
        case "G722":
            return Codec("g722", 16_000)
        case "OPUS":
            return Codec("opus", 16_000)
        case "L16" if rate in (8000, 16000, 24000):
            return Codec("l16", rate)
    known = "PCMU, PCMA, G722, OPUS, and L16 at 8, 16 or 24 kHz"
    raise CarrierError(f"audio that is {encoding} at {rate} Hz: {known} are understood")
