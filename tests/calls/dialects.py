"""What carriers say that nobody simulates for us, as their documentation has it and apart from the product's codecs.

A `Dialect` is one carrier's webhook and socket; `tests.calls.carriers` places calls in it.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlencode
from xml.etree import ElementTree

import jwt
import numpy as np
import orjson
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from media.audio import Pcm
from media.g711 import alaw_decode, alaw_encode, ulaw_decode, ulaw_encode

CALLER, DIALLED = "+15550001111", "+15552223333"


@dataclass
class Read:
    """What a message from the server says: audio (at the dialect's rate), a mark to be answered, a flush."""

    audio: Pcm | None = None
    mark: str | None = None
    flush: bool = False


@dataclass
class Webhook:
    body: bytes
    headers: Mapping[str, str]


@dataclass
class Answer:
    url: str
    token: str
    document: str
    headers: Mapping[str, str] = field(default_factory=dict)
    """Of the socket's upgrade."""


class Dialect(Protocol):
    path: str
    rate: int
    subprotocols: Sequence[str] | None

    def webhook(self, call_id: str) -> Webhook | None: ...

    def answer(self, document: str) -> Answer: ...

    def start(self, call_id: str, answer: Answer) -> list[str | bytes]: ...

    def audio(self, pcm: Pcm) -> str | bytes: ...

    def key(self, key: str) -> str | bytes: ...

    def read(self, message: str | bytes) -> Read: ...

    def marked(self, name: str) -> str | bytes: ...


class Telnyx:
    """TeXML `<Connect><Stream>`; signed webhook, unsigned socket."""

    subprotocols: Sequence[str] | None = None

    def __init__(self, path: str = "/v1/ai/realtime/telephony/telnyx", codec: str = "PCMU") -> None:
        self.path = path
        self.codec = codec
        self.rate = 8000
        self.signer = Ed25519PrivateKey.generate()
        self._chunk = 0

    @property
    def public_key(self) -> str:
        raw = self.signer.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return base64.b64encode(raw).decode()

    def webhook(self, call_id: str) -> Webhook:
        fields = {"CallSid": call_id, "From": CALLER, "To": DIALLED, "AccountSid": "f558", "ConnectionId": "1234"}
        body = urlencode(fields).encode()
        return Webhook(body, {"content_type": "application/x-www-form-urlencoded", **self.signed(body)})

    def signed(self, body: bytes, at: float | None = None) -> dict[str, str]:
        timestamp = str(int(time.time() if at is None else at))
        signature = self.signer.sign(f"{timestamp}|".encode() + body)
        return {
            "telnyx_timestamp": timestamp,
            "telnyx_signature_ed25519": base64.b64encode(signature).decode(),
        }

    def answer(self, document: str) -> Answer:
        stream = ElementTree.fromstring(document).find("Connect/Stream")
        assert stream is not None, document
        assert stream.get("bidirectionalMode") == "rtp"
        assert stream.get("bidirectionalCodec") == self.codec
        return Answer(stream.get("url") or "", self._parameters(document)["realtime_token"], document)

    def _parameters(self, document: str) -> dict[str, str]:
        found = ElementTree.fromstring(document).iter("Parameter")
        return {each.get("name", ""): each.get("value", "") for each in found}

    def start(self, call_id: str, answer: Answer) -> list[str | bytes]:
        start = {
            "user_id": "3E6F995F",
            "call_control_id": f"v3:{call_id}",
            "call_session_id": "ff55a038",
            "from": CALLER,
            "to": DIALLED,
            "tags": [],
            "client_state": "",
            "custom_parameters": {**self._parameters(answer.document), "realtime_token": answer.token, "plan": "gold"},
            "media_format": {"encoding": self.codec, "sample_rate": 8000, "channels": 1},
        }
        return [
            _json({"event": "connected", "version": "1.0.0"}),
            _json({"event": "start", "sequence_number": "1", "stream_id": "32DE0DEA", "start": start}),
        ]

    def audio(self, pcm: Pcm) -> str:
        self._chunk += 1
        payload = base64.b64encode((alaw_encode if self.codec == "PCMA" else ulaw_encode)(pcm)).decode()
        media = {"track": "inbound", "chunk": str(self._chunk), "timestamp": str(20 * self._chunk), "payload": payload}
        sequence = str(self._chunk + 1)
        return _json({"event": "media", "sequence_number": sequence, "media": media, "stream_id": "32DE0DEA"})

    def key(self, key: str) -> str:
        return _json({"event": "dtmf", "stream_id": "32DE0DEA", "sequence_number": "5", "dtmf": {"digit": key}})

    def read(self, message: str | bytes) -> Read:
        data = orjson.loads(message)
        match data:
            case {"event": "media", "media": {"payload": str(payload)}}:
                return Read((alaw_decode if self.codec == "PCMA" else ulaw_decode)(base64.b64decode(payload)))
            case {"event": "mark", "mark": {"name": str(name)}}:
                return Read(mark=name)
            case {"event": "clear"}:
                return Read(flush=True)
        raise AssertionError(f"Telnyx knows no such message: {message!r}")

    def marked(self, name: str) -> str:
        return _json({"event": "mark", "sequence_number": "9", "stream_id": "32DE0DEA", "mark": {"name": name}})


class Vonage:
    """An NCCO that connects to a WebSocket; JWTs on the webhook and on the socket."""

    subprotocols: Sequence[str] | None = None
    secret = "the-signature-secret-of-an-account-of-the-tests"

    def __init__(self, path: str = "/v1/ai/realtime/telephony/vonage") -> None:
        self.path = path
        self.rate = 16_000

    def webhook(self, call_id: str) -> Webhook:
        body = orjson.dumps(
            {
                "from": CALLER.removeprefix("+"),
                "to": DIALLED.removeprefix("+"),
                "uuid": call_id,
                "conversation_uuid": "CON-f972836a",
            }
        )
        token = self.signed(payload_hash=hashlib.sha256(body).hexdigest())
        return Webhook(body, {"content_type": "application/json", "authorization": f"Bearer {token}"})

    def signed(self, at: float | None = None, secret: str | None = None, **claims: object) -> str:
        claims = {"iat": int(time.time() if at is None else at), "jti": "c5ba8f24", "iss": "Vonage", **claims}
        return jwt.encode({**claims, "application_id": "aaaa", "api_key": "abcd1234"}, secret or self.secret, "HS256")

    def answer(self, document: str) -> Answer:
        [action] = orjson.loads(document)
        assert action["action"] == "connect"
        [endpoint] = action["endpoint"]
        assert endpoint["type"] == "websocket"
        assert endpoint["content-type"] == "audio/l16;rate=16000"
        assert endpoint["authorization"] == {"type": "vonage"}
        headers = {"Authorization": f"Bearer {self.signed()}"}
        return Answer(endpoint["uri"], endpoint["headers"]["realtime_token"], document, headers)

    def start(self, call_id: str, answer: Answer) -> list[str | bytes]:
        headers = {**orjson.loads(answer.document)[0]["endpoint"][0]["headers"], "realtime_token": answer.token}
        return [_json({"event": "websocket:connected", "content-type": "audio/l16;rate=16000", **headers})]

    def audio(self, pcm: Pcm) -> bytes:
        return pcm.astype("<i2").tobytes()

    def key(self, key: str) -> str:
        return _json({"event": "websocket:dtmf", "digit": key, "duration": 260})

    def read(self, message: str | bytes) -> Read:
        if isinstance(message, bytes):
            assert len(message) == 640, "20 ms of 16 kHz L16 a message"
            return Read(np.frombuffer(message, "<i2"))
        match orjson.loads(message):
            case {"action": "notify", "payload": dict(payload)}:
                return Read(mark=_json(payload))
            case {"action": "clear"}:
                return Read(flush=True)
        raise AssertionError(f"Vonage knows no such message: {message!r}")

    def marked(self, name: str) -> str:
        return _json({"event": "websocket:notify", "payload": orjson.loads(name)})


class Asterisk:
    """chan_websocket in its plain form: the socket comes by itself, with a password. Marks, flow control."""

    subprotocols: Sequence[str] | None = ("media",)
    secret = "the-password-of-websocket-client-conf"

    def __init__(self, path: str = "/v1/ai/realtime/telephony/asterisk", as_json: bool = False) -> None:
        self.path = path
        self.rate = 16_000
        self.as_json = as_json

    def webhook(self, call_id: str) -> Webhook | None:
        return None

    def answer(self, document: str) -> Answer:
        query = urlencode({"number": CALLER, "dialled": DIALLED, "plan": "gold"})
        basic = base64.b64encode(f"realtime:{self.secret}".encode()).decode()
        return Answer(f"{document}{self.path}?{query}", "", "", {"Authorization": f"Basic {basic}"})

    def start(self, call_id: str, answer: Answer) -> list[str | bytes]:
        fields = {
            "connection_id": "media1",
            "channel": "WebSocket/media1/0x7f1c",
            "channel_id": call_id,
            "format": "slin16",
            "optimal_frame_size": 640,
            "ptime": 20,
        }
        return [self._event("MEDIA_START", **fields)]

    def _event(self, event: str, **fields: object) -> str:
        if self.as_json:
            return _json({"event": event, **fields})
        return " ".join([event, *(f"{name}:{value}" for name, value in fields.items())])

    def audio(self, pcm: Pcm) -> bytes:
        return pcm.astype("<i2").tobytes()

    def key(self, key: str) -> str:
        return self._event("DTMF_END", channel_id="pbx1-1", digit=key)

    def read(self, message: str | bytes) -> Read:
        if isinstance(message, bytes):
            assert len(message) % 640 == 0
            assert len(message) <= 65_500
            return Read(np.frombuffer(message, "<i2"))
        if self.as_json:
            data = orjson.loads(message)
            command, name = data["command"], data.get("correlation_id", "")
        else:
            command, _, name = message.partition(" ")
        assert command in ("MARK_MEDIA", "FLUSH_MEDIA", "HANGUP"), message
        return Read(mark=name) if command == "MARK_MEDIA" else Read(flush=command == "FLUSH_MEDIA")

    def marked(self, name: str) -> str:
        if self.as_json:
            return self._event("MEDIA_MARK_PROCESSED", channel_id="pbx1-1", correlation_id=name)
        return f"MEDIA_MARK_PROCESSED {name}"


class AudioSocket:
    """Frames over TCP to `realtime audiosocket` at `port`. The dial plan asks the webhook for the UUID."""

    subprotocols: Sequence[str] | None = None
    secret = "what-the-dial-plan-and-the-server-know"
    path = "/v1/ai/realtime/telephony/audiosocket"
    rate = 8000

    def __init__(self, port: int) -> None:
        self.port = port
        self._rest = b""

    def webhook(self, call_id: str) -> Webhook | None:
        form = {"secret": self.secret, "number": CALLER, "dialled": DIALLED, "plan": "gold"}
        return Webhook(urlencode(form).encode(), {"content_type": "application/x-www-form-urlencoded"})

    def answer(self, document: str) -> Answer:
        return Answer(f"tcp://127.0.0.1:{self.port}", document, document)

    def start(self, call_id: str, answer: Answer) -> list[str | bytes]:
        return [self._frame(0x01, uuid.UUID(answer.token).bytes)]

    def _frame(self, kind: int, body: bytes) -> bytes:
        return struct.pack(">BH", kind, len(body)) + body

    def audio(self, pcm: Pcm) -> bytes:
        return self._frame(0x10, pcm.astype("<i2").tobytes())

    def key(self, key: str) -> bytes:
        return self._frame(0x03, key.encode())

    def read(self, message: str | bytes) -> Read:
        assert isinstance(message, bytes)
        data, pieces = self._rest + message, []
        while len(data) >= 3 and len(data) >= (end := 3 + int.from_bytes(data[1:3])):
            assert data[0] in (0x00, 0x10), data[:3]
            assert data[0] == 0x00 or end == 323, "20 ms of 8 kHz L16 a frame"
            pieces.append(data[3:end])
            data = data[end:]
        self._rest = data
        return Read(np.frombuffer(b"".join(pieces), "<i2") if any(pieces) else None)

    def marked(self, name: str) -> bytes:
        raise AssertionError("AudioSocket has no marks")


def _json(data: object) -> str:
    return orjson.dumps(data).decode()
