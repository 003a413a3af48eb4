"""What a carrier is to the rest of the house: one small sans-I/O file each, behind these protocols.

A `Carrier` knows the carrier's web side: whether a request is really its own, who is calling, and the
document that sends the call to our socket. Its `Stream` is one call's socket: messages in, events out,
and back. Neither reads a socket, a clock or a file. What differs between carriers beside the wire format
(how audio is paced, whether marks come back, what a flush is) stands in `Traits`.

Whatever a stream is given, valid or hostile, `decode` returns events or raises `CarrierError`, nothing else.
"""

from __future__ import annotations

import binascii
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias
from urllib.parse import parse_qsl

import orjson
from pybase64 import b64decode

Message: TypeAlias = str | bytes
"""One message of the socket: text or binary."""

TOKEN = "realtime_token"
"""The custom parameter that brings our one-time token back."""
CALL = "realtime_call"
"""The custom parameter that brings the id back by which the webhook named the call."""
MAX_PARAMETERS = 32
MAX_MESSAGE = 64 << 10
"""Bytes of a message: 20 to 100 ms of audio are at most 6 KiB."""
MAX_TEXT = 500
"""Characters kept of a name, a value or a number that a carrier passes on."""
KEYS = frozenset("0123456789*#ABCD")


class CarrierError(ValueError):
    """A message that this carrier would never send; the call cannot go on."""


@dataclass(frozen=True, slots=True)
class Codec:
    """How audio travels: `pcmu` and `pcma` (G.711, a byte a sample), `l16` (little-endian), and what we only hear:
    `g722` (a byte for two samples) and `opus` (a packet a message)."""

    encoding: Literal["pcmu", "pcma", "l16", "g722", "opus"]
    rate: int = 8000
    """Hz, of what is decoded."""

    def ms(self, payload: bytes) -> float:
        """How long it sounds. An Opus packet counts as the usual 20 ms."""
        match self.encoding:
            case "l16":
                return len(payload) * 500 / self.rate
            case "opus":
                return 20.0
        return len(payload) / 8

    def frame_bytes(self, ms: int) -> int:
        """The size of so much audio that we send."""
        return self.rate * ms // 1000 * (2 if self.encoding == "l16" else 1)

    @property
    def name(self) -> str:
        """As the settings write it: `pcmu`, `pcma`, `l16/16000`."""
        return f"l16/{self.rate}" if self.encoding == "l16" else self.encoding

    @classmethod
    def named(cls, name: str) -> Codec:
        """Raises ValueError."""
        encoding, _, rate = name.partition("/")
        if encoding == "l16" and rate.isdigit():
            return cls("l16", int(rate))
        if encoding in ("pcmu", "pcma") and not rate:
            return cls("pcmu" if encoding == "pcmu" else "pcma")
        raise ValueError(f"no codec is called {name}")


PCMU = Codec("pcmu")


@dataclass(frozen=True, slots=True)
class Traits:
    """How a carrier wants its audio.

    `quantum_ms`: audio sent at once. `fill_ms`: more is sent as soon as the carrier has less than this left to play;
    so at most `fill_ms + quantum_ms` is ahead of what is heard. `mark_ms`: how often we ask what was heard, None where
    the carrier cannot say. `flushes`: what was sent ahead can be taken back. `paces`: we are the clock, since the
    carrier keeps no queue and plays what it is given as it comes. `frame_bytes`: every message holds whole frames of
    this many bytes. `subprotocol`: of the WebSocket.
    """

    quantum_ms: int = 200
    fill_ms: int = 600
    mark_ms: int | None = 400
    flushes: bool = True
    paces: bool = False
    frame_bytes: int | None = None
    subprotocol: str | None = None


# --- what comes out of a stream ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The handshake is complete: whose call this is, and how audio travels each way."""

    call_id: str
    stream_id: str
    inbound: Codec
    outbound: Codec
    token: str = ""
    """The one-time token that our answer to the webhook put into the call."""
    number: str | None = None
    dialled: str | None = None
    account: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Audio:
    """`at_ms`: where in the stream it belongs, where the carrier says so; a jump means that audio was lost."""

    payload: bytes
    at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Key:
    key: str


@dataclass(frozen=True, slots=True)
class Marked:
    """Everything sent before the mark has been played, or thrown away by our own flush."""

    name: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The carrier's side has ended."""

    reason: str = "remote_closed"


@dataclass(frozen=True, slots=True)
class Reply:
    """To be sent back as it is."""

    message: Message


@dataclass(frozen=True, slots=True)
class Hold:
    """The carrier's queue is full (True), or takes audio again."""

    on: bool


Event: TypeAlias = Started | Audio | Key | Marked | Stopped | Reply | Hold


# --- one call's socket ---------------------------------------------------------------------------


class Stream(Protocol):
    """One call's socket, sans-I/O. After `Started` was decoded the rest may be used."""

    @property
    def traits(self) -> Traits: ...

    def decode(self, message: Message) -> Sequence[Event]:
        """Raises `CarrierError`."""

    def audio(self, payload: bytes) -> Sequence[Message]:
        """Encoded audio, whole frames where `traits` asks for them."""

    def flush(self) -> Message | None:
        """Throw away what was sent and not played."""

    def mark(self, name: str) -> Message | None:
        """Asks to be told when everything sent so far has been played."""

    def hang_up(self) -> Message | None:
        """Said before the socket is closed."""


# --- the web side ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WebRequest:
    """A request as the carrier signed it. `urls`: how it may have been written; headers by lower-case names."""

    method: str
    urls: Sequence[str]
    headers: Mapping[str, str]
    body: bytes = b""
    now: float = 0.0
    """Unix seconds."""

    @property
    def address(self) -> str:
        """For logs: without the query, where a dial plan writes who calls."""
        return self.urls[0].partition("?")[0]

    @property
    def form(self) -> list[tuple[str, str]]:
        """The body as form fields. Raises `CarrierError`."""
        try:
            return parse_qsl(
                self.body.decode(), keep_blank_values=True, strict_parsing=bool(self.body), max_num_fields=200
            )
        except ValueError as error:
            raise CarrierError("the body is not a form") from error


@dataclass(frozen=True, slots=True)
class Secrets:
    """What proves a carrier's identity. `main`: what it signs with (or its public key)."""

    main: str
    api_key: str | None = None
    """For its REST interface, where that is not `main`."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """Who calls, as the webhook says."""

    call_id: str
    number: str | None = None
    dialled: str | None = None
    account: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Document:
    """The answer to a webhook: what the carrier is to do with the call."""

    body: str
    content_type: str


@dataclass(frozen=True, slots=True)
class RestCall:
    """A request to the carrier's own interface. `path` goes behind its base URL."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Carrier(Protocol):
    """One kind of carrier."""

    @property
    def name(self) -> str: ...

    @property
    def rest_url(self) -> str | None:
        """Where its REST interface is, if we use one."""

    @property
    def codecs(self) -> Sequence[Codec]:
        """What can be asked for, the default first; none where the other side chooses."""

    @property
    def announces(self) -> bool:
        """Its webhook comes before its socket, which brings our token back. Else the socket alone is proof enough."""

    @property
    def signs_socket(self) -> bool:
        """The upgrade carries a proof of identity; where it cannot, the token is what guards the socket."""

    def flaw(self, secrets: Secrets) -> str | None:
        """What is wrong with the secrets, as far as can be seen from here."""

    def signed_webhook(self, request: WebRequest, secrets: Secrets) -> bool:
        """Whether the request is the carrier's. Compared in constant time; never raises."""

    def signed_socket(self, request: WebRequest, secrets: Secrets) -> bool | None:
        """Whether the upgrade is the carrier's; None when it carries no signature at all."""

    def incoming(self, request: WebRequest) -> Incoming:
        """Raises `CarrierError`."""

    def answer(self, socket_url: str, token: str, incoming: Incoming, codec: Codec | None) -> Document:
        """Sends the call to our socket, with the token."""

    def stream(self, codec: Codec | None, query: Mapping[str, str]) -> Stream:
        """`query`: of the socket's URL."""

    def transfer(self, started: Started, target: str, secrets: Secrets, now: float) -> RestCall | None:
        """Connects the caller with somebody else; None where that needs what we do not have. `now`: unix seconds.

        Raises `CarrierError`.
        """


# --- what the files of the carriers share -----------------------------------------------------------


def check_size(message: Message) -> None:
    """Raises `CarrierError` for a message that no carrier would send."""
    if len(message) > MAX_MESSAGE:
        raise CarrierError(f"a message of {len(message)} bytes")


def parse_json(message: Message) -> dict[str, Any]:
    """A text message that is a JSON object. Raises `CarrierError`."""
    if isinstance(message, bytes):
        raise CarrierError("a binary message where text belongs")
    try:
        data = orjson.loads(message)
    except ValueError as error:
        raise CarrierError("a message that is not JSON") from error
    if not isinstance(data, dict):
        raise CarrierError("a message that is no JSON object")
    return data


def member(data: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object within an object; {} when there is none."""
    value = data.get(key)
    return value if isinstance(value, dict) else {}


def text_of(value: object) -> str:
    """Text or a number as text, without control characters, shortened; "" for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return "".join(char for char in str(value)[:MAX_TEXT] if char.isprintable())


def parameters_of(value: object) -> dict[str, str]:
    """Custom parameters: names and texts, as many as we keep."""
    if not isinstance(value, dict):
        return {}
    named = ((text_of(name), text_of(text)) for name, text in list(value.items())[:MAX_PARAMETERS])
    return {name: text for name, text in named if name}


def payload_of(value: object) -> bytes:
    """Base64 audio. Raises `CarrierError`."""
    if not isinstance(value, str):
        raise CarrierError("audio that is not text")
    try:
        return b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise CarrierError("audio that is not base64") from error


def count_of(value: object) -> int | None:
    """A count that some carriers write as text; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if 0 <= value < 1 << 53 else None
    return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16 else None


def keys_of(value: object) -> list[Event]:
    """A pressed key, if it is one."""
    key = text_of(value).upper()
    return [Key(key)] if key in KEYS and key else []


# --- proofs of identity that several share ----------------------------------------------------------


def same(given: str, right: str) -> bool:
    """Whether two secrets are the same, in constant time."""
    return hmac.compare_digest(given.encode(errors="replace"), right.encode(errors="replace"))


def password_of(headers: Mapping[str, str]) -> str | None:
    """What `Authorization: Basic` (any user name) or `Bearer` carries."""
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    if scheme.lower() != "basic":
        return None
    try:
        return b64decode(value.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        return ""
