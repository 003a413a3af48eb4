"""Vonage: an NCCO that connects the call to a WebSocket. Binary audio, JSON text beside it.

    Vonage → us   text websocket:connected {content-type, our headers}, then binary L16; websocket:dtmf,
                  websocket:notify, websocket:cleared
    us → Vonage   binary L16, 20 ms a message; {"action": "clear"}, {"action": "notify", "payload"}

L16 is little-endian, 8, 16 or 24 kHz as our NCCO asks (16 by default). Webhooks carry a JWT (HS256, the signature
secret) with the SHA-256 of the body; the NCCO asks for the same kind of JWT on the socket's upgrade.
Source: developer.vonage.com, "WebSockets in the Vonage Voice API", "Signed webhooks"; vonage-jwt's verify_signature.
"""

from __future__ import annotations

import hashlib
import math
import uuid
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import jwt
import orjson

from signaling.telephony.carrier import (
    CALL,
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
    Stream,
    Traits,
    WebRequest,
    keys_of,
    member,
    parameters_of,
    parse_json,
    same,
    text_of,
)

TOLERANCE_S = 300
_JSON = {"Content-Type": "application/json"}
_CLEAR = '{"action":"clear"}'


class VonageStream:
    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._frame = codec.rate // 50 * 2
        self._traits = Traits(frame_bytes=self._frame)
        self._started = False

    @property
    def traits(self) -> Traits:
        return self._traits

    def decode(self, message: Message) -> Sequence[Event]:
        if isinstance(message, bytes):
            if not self._started:
                raise CarrierError("audio before websocket:connected")
            return [Audio(message)]
        data = parse_json(message)
        event = data.get("event")
        if event == "websocket:connected":
            return self._start(data)
        if event == "websocket:notify":
            return [Marked(text_of(member(data, "payload").get("mark")))]
        if event == "websocket:dtmf":
            digit = data.get("digit")
            return keys_of(digit if digit is not None else member(data, "dtmf").get("digit"))
        return []

    def _start(self, data: Mapping[str, object]) -> Sequence[Event]:
        if self._started:
            raise CarrierError("a second websocket:connected")
        content_type = text_of(data.get("content-type")).replace(" ", "").lower()
        if content_type and content_type != f"audio/l16;rate={self._codec.rate}":
            raise CarrierError(f"audio that is {content_type}, not L16 at {self._codec.rate} Hz")
        self._started = True
        parameters = parameters_of({key: value for key, value in data.items() if key not in ("event", "content-type")})
        token, call_id = parameters.pop(TOKEN, ""), parameters.pop(CALL, "")
        if not call_id:
            raise CarrierError("websocket:connected without our headers")
        return [Started(call_id, call_id, self._codec, self._codec, token=token, parameters=parameters)]

    def audio(self, payload: bytes) -> Sequence[Message]:
        return [payload[at : at + self._frame] for at in range(0, len(payload), self._frame)]

    def flush(self) -> Message:
        return _CLEAR

    def mark(self, name: str) -> Message:
        return orjson.dumps({"action": "notify", "payload": {"mark": name}}).decode()

    def hang_up(self) -> Message | None:
        return None  # closing the socket ends the connect action, the last of the NCCO


class Vonage:
    name = "vonage"
    rest_url: str | None = "https://api.nexmo.com"
    announces = True
    signs_socket = True
    codecs: Sequence[Codec] = tuple(Codec("l16", rate) for rate in (16_000, 8_000, 24_000))

    def flaw(self, secrets: Secrets) -> str | None:
        try:
            if secrets.api_key is not None:
                _own_token("", secrets.api_key, 0.0)
        except CarrierError as error:
            return str(error)
        return None

    def signed_webhook(self, request: WebRequest, secrets: Secrets) -> bool:
        claims = _claims(request, secrets)
        given = text_of(claims.get("payload_hash")) if claims else ""
        return bool(given) and same(given, hashlib.sha256(request.body).hexdigest())

    def signed_socket(self, request: WebRequest, secrets: Secrets) -> bool | None:
        return None if "authorization" not in request.headers else _claims(request, secrets) is not None

    def incoming(self, request: WebRequest) -> Incoming:
        data = parse_json(request.body.decode(errors="replace"))
        call_id = text_of(data.get("uuid"))
        if not call_id:
            raise CarrierError("the body has no uuid")
        number, dialled = text_of(data.get("from")), text_of(data.get("to"))
        others = {key: value for key, value in data.items() if key not in ("uuid", "from", "to")}
        account = text_of(_unverified(request).get("application_id"))
        return Incoming(call_id, number or None, dialled or None, account, parameters_of(others))

    def answer(self, socket_url: str, token: str, incoming: Incoming, codec: Codec | None) -> Document:
        endpoint = {
            "type": "websocket",
            "uri": socket_url,
            "content-type": f"audio/l16;rate={_l16(codec).rate}",
            "headers": {TOKEN: token, CALL: incoming.call_id},
            "authorization": {"type": "vonage"},
        }
        number = (incoming.dialled or "").removeprefix("+")
        shown = {"from": number} if number.isdigit() else {"randomFromNumber": True}
        ncco = [{"action": "connect", **shown, "endpoint": [endpoint]}]
        return Document(orjson.dumps(ncco).decode(), "application/json")

    def stream(self, codec: Codec | None, query: Mapping[str, str]) -> Stream:
        return VonageStream(_l16(codec))

    def transfer(self, started: Started, target: str, secrets: Secrets, now: float) -> RestCall | None:
        """The call gets another NCCO. `secrets.api_key`: the application's private key, PEM."""
        if secrets.api_key is None or not started.account:
            return None
        number = target.removeprefix("+")
        endpoint = {"type": "phone", "number": number} if number.isdigit() else {"type": "sip", "uri": target}
        ncco = [{"action": "connect", "randomFromNumber": True, "endpoint": [endpoint]}]
        return RestCall(
            "PUT",
            f"/v1/calls/{quote(started.call_id, safe='')}",
            {"Authorization": f"Bearer {_own_token(started.account, secrets.api_key, now)}", **_JSON},
            orjson.dumps({"action": "transfer", "destination": {"type": "ncco", "ncco": ncco}}),
        )


def _l16(codec: Codec | None) -> Codec:
    return codec or Vonage.codecs[0]


def _unverified(request: WebRequest) -> Mapping[str, object]:
    """Claims of a request that has been verified."""
    token = request.headers.get("authorization", "").partition(" ")[2].strip()
    try:
        claims: dict[str, object] = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return {}
    return claims


def _own_token(application: str, private_key: str, now: float) -> str:
    """A JWT as Vonage's interface wants it. Raises `CarrierError` when the key is none."""
    claims = {"application_id": application, "iat": int(now), "exp": int(now) + 60, "jti": str(uuid.uuid4())}
    try:
        return jwt.encode(claims, private_key, "RS256")
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        raise CarrierError("api_key is not the application's private key") from error


def _claims(request: WebRequest, secrets: Secrets) -> Mapping[str, object] | None:
    """Of the request's JWT, if it is Vonage's and fresh."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or len(token) > 4096:
        return None
    try:
        claims: dict[str, object] = jwt.decode(
            token.strip(), secrets.main, algorithms=["HS256"], options={"verify_iat": False, "verify_aud": False}
        )
    except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
        return None
    issued_at = claims.get("iat")
    if isinstance(issued_at, bool) or not isinstance(issued_at, int | float) or not math.isfinite(issued_at):
        return None
    return claims if abs(request.now - issued_at) <= TOLERANCE_S else None
