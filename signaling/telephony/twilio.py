"""Twilio: `<Connect><Stream>` (bidirectional Media Streams), JSON text, mu-law 8 kHz both ways.

    Twilio → us   connected, start, media, dtmf, mark, stop        numbers are written as text
    us → Twilio   media, mark, clear                               with the streamSid

Marks come back when everything before them was played, and at once when `clear` dropped it. A stream's URL has
no query, so the token travels as a `<Parameter>`. Requests are signed by X-Twilio-Signature: an HMAC over the URL
and the sorted form fields, SHA-1 with the auth token, or SHA-256 with a shared key where
X-Twilio-Webhooks-Signature-Settings says so (as in twilio-python 9.13's RequestValidator).
Source: twilio.com/docs/voice/media-streams/websocket-messages, twilio.com/docs/usage/security.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from urllib.parse import quote, urlencode
from xml.sax.saxutils import escape, quoteattr

import orjson
from pybase64 import b64encode, b64encode_as_string

from signaling.telephony.carrier import (
    MAX_PARAMETERS,
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

_TRAITS = Traits()
_HASHES = {"HMAC_SHA1": hashlib.sha1, "HMAC_SHA256": hashlib.sha256}
_KNOWN_FIELDS = frozenset(("CallSid", "From", "To", "Caller", "Called", "AccountSid"))


class TwilioStream:
    def __init__(self) -> None:
        self._stream_sid = ""
        self._prefix = ""

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
            return [Stopped()]
        return self._start(member(data, "start")) if event == "start" else []

    def _media(self, media: Mapping[str, object]) -> Sequence[Event]:
        if not self._stream_sid:
            raise CarrierError("audio before start")
        if media.get("track", "inbound") != "inbound":
            return []
        return [Audio(payload_of(media.get("payload")), count_of(media.get("timestamp")))]

    def _start(self, start: Mapping[str, object]) -> Sequence[Event]:
        if self._stream_sid:
            raise CarrierError("a second start")
        stream_sid, call_sid = text_of(start.get("streamSid")), text_of(start.get("callSid"))
        if not stream_sid or not call_sid:
            raise CarrierError("start without streamSid and callSid")
        form = member(start, "mediaFormat")
        if form and (form.get("encoding") != "audio/x-mulaw" or count_of(form.get("sampleRate")) != 8000):
            raise CarrierError("audio that is not mu-law at 8 kHz")
        self._stream_sid = stream_sid
        self._prefix = f'{{"event":"media","streamSid":{orjson.dumps(stream_sid).decode()},"media":{{"payload":"'
        parameters = parameters_of(start.get("customParameters"))
        token = parameters.pop(TOKEN, "")
        return [
            Started(
                call_sid,
                stream_sid,
                PCMU,
                PCMU,
                token=token,
                account=text_of(start.get("accountSid")),
                parameters=parameters,
            )
        ]

    def audio(self, payload: bytes) -> Sequence[Message]:
        return (f'{self._prefix}{b64encode_as_string(payload)}"}}}}',)

    def flush(self) -> Message:
        return orjson.dumps({"event": "clear", "streamSid": self._stream_sid}).decode()

    def mark(self, name: str) -> Message:
        return orjson.dumps({"event": "mark", "streamSid": self._stream_sid, "mark": {"name": name}}).decode()

    def hang_up(self) -> Message | None:
        return None  # closing the socket ends <Connect>; the document has nothing after it


class Twilio:
    name = "twilio"
    rest_url: str | None = "https://api.twilio.com"
    announces = True
    signs_socket = True
    codecs: Sequence[Codec] = (PCMU,)

    def flaw(self, secrets: Secrets) -> str | None:
        return None

    def signed_webhook(self, request: WebRequest, secrets: Secrets) -> bool:
        return self.signed_socket(request, secrets) is True

    def signed_socket(self, request: WebRequest, secrets: Secrets) -> bool | None:
        given = request.headers.get("x-twilio-signature")
        if not given:
            return None
        name = _algorithm(request.headers.get("x-twilio-webhooks-signature-settings", ""))
        algorithm = _HASHES.get(name)
        if algorithm is None:
            return False
        try:
            fields = "".join(f"{name}{value}" for name, value in sorted(set(request.form)))
        except CarrierError:
            return False
        good = False
        for url in request.urls:
            mac = hmac.new(secrets.main.encode(), (url + fields).encode(), algorithm)
            good |= hmac.compare_digest(b64encode(mac.digest()), given.encode())
        return good

    def incoming(self, request: WebRequest) -> Incoming:
        return incoming_form(request)

    def answer(self, socket_url: str, token: str, incoming: Incoming, codec: Codec | None) -> Document:
        return twiml(socket_url, {TOKEN: token})

    def stream(self, codec: Codec | None, query: Mapping[str, str]) -> Stream:
        return TwilioStream()

    def transfer(self, started: Started, target: str, secrets: Secrets, now: float) -> RestCall | None:
        credentials = b64encode_as_string(f"{started.account}:{secrets.api_key or secrets.main}".encode())
        return RestCall(
            "POST",
            f"/2010-04-01/Accounts/{quote(started.account, safe='')}/Calls/{quote(started.call_id, safe='')}.json",
            {"Authorization": f"Basic {credentials}", "Content-Type": "application/x-www-form-urlencoded"},
            urlencode({"Twiml": dial(target)}).encode(),
        )


def twiml(socket_url: str, parameters: Mapping[str, str], attributes: str = "") -> Document:
    """The document that connects a call with a socket; Telnyx's TeXML has the same form."""
    inner = "".join(
        f"<Parameter name={quoteattr(name)} value={quoteattr(value)}/>"
        for name, value in list(parameters.items())[:MAX_PARAMETERS]
    )
    body = (
        '<?xml version="1.0" encoding="UTF-8"?><Response><Connect>'
        f"<Stream url={quoteattr(socket_url)}{attributes}>{inner}</Stream></Connect></Response>"
    )
    return Document(body, "application/xml")


def dial(target: str) -> str:
    """The document that connects the caller with somebody else: a number or a SIP address."""
    noun = f"<Sip>{escape(target)}</Sip>" if target.startswith(("sip:", "sips:")) else escape(target)
    return f"<Response><Dial>{noun}</Dial></Response>"


def incoming_form(request: WebRequest) -> Incoming:
    """Who calls, by the form that Twilio's webhook posts, and Telnyx's TeXML too. Raises `CarrierError`."""
    form = dict(request.form)
    call_sid = text_of(form.get("CallSid", ""))
    if not call_sid:
        raise CarrierError("the form has no CallSid")
    others = {name: value for name, value in form.items() if name not in _KNOWN_FIELDS}
    number, dialled, account = (text_of(form.get(name, "")) for name in ("From", "To", "AccountSid"))
    return Incoming(call_sid, number or None, dialled or None, account, parameters_of(others))


def _algorithm(settings: str) -> str:
    """`key=…,algorithm=HMAC_SHA256`; without it SHA-1."""
    for part in settings.split(","):
        name, _, value = part.partition("=")
        if name.strip() == "algorithm" and value.strip():
            return value.strip().upper()
    return "HMAC_SHA1"
