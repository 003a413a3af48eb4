"""Each carrier's messages, both ways, as its documentation or source shows them; and what nobody would send."""

from __future__ import annotations

import base64
import json
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from signaling.telephony.asterisk import Asterisk
from signaling.telephony.audiosocket import AudioSocket
from signaling.telephony.carrier import (
    Audio,
    Carrier,
    CarrierError,
    Codec,
    Hold,
    Incoming,
    Key,
    Marked,
    Message,
    Secrets,
    Started,
    Stopped,
    Stream,
    WebRequest,
)
from signaling.telephony.telnyx import Telnyx
from signaling.telephony.twilio import Twilio
from signaling.telephony.vonage import Vonage

ULAW = bytes(range(160))
B64 = base64.b64encode(ULAW).decode()
L16 = bytes(640)
ID = uuid.UUID("0123abcd-4567-489a-9cde-f0123456789a")

TWILIO_START = {
    "event": "start",
    "sequenceNumber": "1",
    "start": {
        "accountSid": "AC1",
        "streamSid": "MZ1",
        "callSid": "CA1",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
        "customParameters": {"realtime_token": "tok", "plan": "gold"},
    },
    "streamSid": "MZ1",
}
TELNYX_START = {
    "event": "start",
    "sequence_number": "1",
    "stream_id": "32DE",
    "start": {
        "user_id": "3E6F",
        "call_control_id": "v2:T02",
        "from": "+13122010094",
        "to": "+13122123456",
        "custom_parameters": {"realtime_token": "tok", "customer_id": "customer_123"},
        "media_format": {"encoding": "PCMU", "sample_rate": 8000, "channels": 1},
    },
}
VONAGE_START = {
    "event": "websocket:connected",
    "content-type": "audio/l16;rate=16000",
    "realtime_token": "tok",
    "realtime_call": "CON-1",
    "plan": "gold",
}
ASTERISK_START = (
    "MEDIA_START connection_id:media1 channel:WebSocket/media1-0x7f channel_id:asterisk-1763 "
    "format:slin16 optimal_frame_size:640 ptime:20"
)
ASTERISK_JSON = {
    "event": "MEDIA_START",
    "connection_id": "media1",
    "channel": "WebSocket/media1-0x7f",
    "channel_id": "asterisk-1763",
    "format": "ulaw",
    "optimal_frame_size": 160,
    "ptime": 20,
    "channel_variables": {"plan": "gold"},
}


def frame(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + len(body).to_bytes(2) + body


STARTS: dict[str, tuple[Carrier, Message]] = {
    "twilio": (Twilio(), json.dumps(TWILIO_START)),
    "telnyx": (Telnyx(), json.dumps(TELNYX_START)),
    "vonage": (Vonage(), json.dumps(VONAGE_START)),
    "asterisk": (Asterisk(), ASTERISK_START),
    "audiosocket": (AudioSocket(), frame(0x01, ID.bytes)),
}


def started(name: str, **query: str) -> tuple[Stream, Started]:
    carrier, message = STARTS[name]
    stream = carrier.stream(None, query)
    event = stream.decode(message)[0]
    assert isinstance(event, Started)
    return stream, event


HEARD: list[tuple[str, Any, list[object]]] = [
    (
        "twilio",
        {"event": "media", "media": {"track": "inbound", "chunk": "2", "timestamp": "20", "payload": B64}},
        [Audio(ULAW, 20)],
    ),
    ("twilio", {"event": "media", "media": {"track": "outbound", "payload": B64}}, []),
    ("twilio", {"event": "mark", "sequenceNumber": "4", "streamSid": "MZ1", "mark": {"name": "m1"}}, [Marked("m1")]),
    ("twilio", {"event": "dtmf", "streamSid": "MZ1", "dtmf": {"track": "inbound_track", "digit": "#"}}, [Key("#")]),
    ("twilio", {"event": "dtmf", "dtmf": {"digit": "55"}}, []),
    ("twilio", {"event": "stop", "stop": {"accountSid": "AC1", "callSid": "CA1"}}, [Stopped()]),
    ("twilio", {"event": "connected", "protocol": "Call", "version": "1.0.0"}, []),
    ("twilio", {"event": "of the future"}, []),
    (
        "telnyx",
        {"event": "media", "sequence_number": "4", "media": {"track": "inbound", "chunk": "1", "payload": B64}},
        [Audio(ULAW, 0)],
    ),
    ("telnyx", {"event": "dtmf", "stream_id": "32DE", "dtmf": {"digit": "1"}}, [Key("1")]),
    ("telnyx", {"event": "mark", "mark": {"name": "m7"}}, [Marked("m7")]),
    ("telnyx", {"event": "error", "payload": {"code": 100003, "title": "malformed_frame"}}, []),
    ("telnyx", {"event": "stop", "stop": {"call_control_id": "v2:T02"}}, [Stopped()]),
    ("vonage", L16, [Audio(L16)]),
    ("vonage", {"event": "websocket:dtmf", "digit": "5", "duration": 260}, [Key("5")]),
    ("vonage", {"event": "websocket:notify", "payload": {"mark": "m2"}}, [Marked("m2")]),
    ("vonage", {"event": "websocket:cleared"}, []),
    ("asterisk", L16, [Audio(L16)]),
    ("asterisk", "DTMF_END digit:5 channel_id:asterisk-1763", [Key("5")]),
    ("asterisk", "MEDIA_MARK_PROCESSED m3", [Marked("m3")]),
    ("asterisk", "MEDIA_XOFF", [Hold(True)]),
    ("asterisk", "MEDIA_XON", [Hold(False)]),
    ("asterisk", "QUEUE_DRAINED", []),
    ("audiosocket", frame(0x10, bytes(320)), [Audio(bytes(320))]),
    ("audiosocket", frame(0x03, b"7"), [Key("7")]),
    ("audiosocket", frame(0x00, b""), [Stopped()]),
    ("audiosocket", frame(0xFF, b"\x01"), [Stopped("failed")]),
]


def on_wire(message: Any) -> Message:
    return json.dumps(message) if isinstance(message, dict) else message


@pytest.mark.parametrize(("name", "message", "events"), HEARD)
def test_what_a_carrier_sends(name: str, message: Any, events: list[object]) -> None:
    stream, _ = started(name)
    assert list(stream.decode(on_wire(message))) == events


def test_who_calls_and_how_audio_travels() -> None:
    pcmu, wide = Codec("pcmu"), Codec("l16", 16_000)
    assert started("twilio")[1] == Started(
        "CA1", "MZ1", pcmu, pcmu, token="tok", account="AC1", parameters={"plan": "gold"}
    )
    assert started("telnyx")[1] == Started(
        "v2:T02", "32DE", pcmu, pcmu, "tok", "+13122010094", "+13122123456", parameters={"customer_id": "customer_123"}
    )
    assert started("vonage")[1] == Started("CON-1", "CON-1", wide, wide, "tok", parameters={"plan": "gold"})
    assert started("asterisk", number="+1555", dialled="100", extra="x")[1] == Started(
        "asterisk-1763", "media1", wide, wide, number="+1555", dialled="100", parameters={"extra": "x"}
    )
    narrow = Codec("l16", 8_000)
    assert started("audiosocket")[1] == Started("", "0123abcd", narrow, narrow, token=str(ID))


def sent(name: str) -> list[Message | None]:
    stream, event = started(name)
    payload = bytes(event.outbound.frame_bytes(20))
    return [*stream.audio(payload), stream.mark("m1"), stream.flush(), stream.hang_up()]


def test_what_a_carrier_is_sent() -> None:
    silence = base64.b64encode(bytes(160)).decode()
    media, mark, clear, end = sent("twilio")
    assert isinstance(media, str)
    assert json.loads(media) == {"event": "media", "streamSid": "MZ1", "media": {"payload": silence}}
    assert json.loads(str(mark)) == {"event": "mark", "streamSid": "MZ1", "mark": {"name": "m1"}}
    assert json.loads(str(clear)) == {"event": "clear", "streamSid": "MZ1"}
    assert end is None
    media, mark, clear, end = sent("telnyx")
    assert json.loads(str(media)) == {"event": "media", "media": {"payload": silence}}
    assert json.loads(str(mark)) == {"event": "mark", "mark": {"name": "m1"}}
    assert json.loads(str(clear)) == {"event": "clear"}
    assert sent("vonage") == [bytes(640), '{"action":"notify","payload":{"mark":"m1"}}', '{"action":"clear"}', None]
    assert sent("asterisk") == [bytes(640), "MARK_MEDIA m1", "FLUSH_MEDIA", "HANGUP"]
    assert sent("audiosocket") == [frame(0x10, bytes(320)), None, None, b"\x00\x00\x00"]


def test_asterisk_is_answered_in_the_form_it_speaks() -> None:
    stream = Asterisk().stream(None, {})
    event = stream.decode(json.dumps(ASTERISK_JSON))[0]
    assert isinstance(event, Started)
    assert event.parameters == {"plan": "gold"}
    assert stream.traits.frame_bytes == 160
    commands = [stream.mark("m1"), stream.flush(), stream.hang_up()]
    assert [json.loads(str(command)) for command in commands] == [
        {"command": "MARK_MEDIA", "correlation_id": "m1"},
        {"command": "FLUSH_MEDIA"},
        {"command": "HANGUP"},
    ]
    assert list(stream.decode('{"event":"DTMF_END","channel_id":"x","digit":"9"}')) == [Key("9")]
    assert list(stream.decode('{"event":"MEDIA_MARK_PROCESSED","correlation_id":"m1"}')) == [Marked("m1")]


def test_a_vonage_message_is_twenty_milliseconds() -> None:
    stream, _ = started("vonage")
    assert [len(message) for message in stream.audio(bytes(6400))] == [640] * 10


def test_audiosocket_frames_are_put_together_from_any_pieces() -> None:
    whole = frame(0x01, ID.bytes) + frame(0x10, bytes(320)) + frame(0x03, b"*")
    for size in (1, 2, 3, 7, 19, 400):
        stream = AudioSocket().stream(None, {})
        events = [event for at in range(0, len(whole), size) for event in stream.decode(whole[at : at + size])]
        assert [type(event) for event in events] == [Started, Audio, Key]


# --- Telnyx's order ---------------------------------------------------------------------------------


def telnyx_frames(*chunks: int) -> list[tuple[int, int | None]]:
    """What comes out, as (first byte, at_ms), of frames that come in this order."""
    stream, _ = started("telnyx")
    events = []
    for chunk in chunks:
        payload = base64.b64encode(bytes([chunk]) * 160).decode()
        events += stream.decode(json.dumps({"event": "media", "media": {"chunk": str(chunk), "payload": payload}}))
    return [(event.payload[0], event.at_ms) for event in events if isinstance(event, Audio)]


def test_frames_out_of_order_are_sorted() -> None:
    assert telnyx_frames(1, 3, 2, 4) == [(1, 0), (2, 20), (3, 40), (4, 60)]
    assert telnyx_frames(1, 4, 3, 2, 5) == [(1, 0), (2, 20), (3, 40), (4, 60), (5, 80)]


def test_a_lost_frame_is_given_up_after_three_later_ones_and_its_time_is_kept() -> None:
    assert telnyx_frames(1, 3, 4, 5) == [(1, 0)]
    assert telnyx_frames(1, 3, 4, 5, 6) == [(1, 0), (3, 40), (4, 60), (5, 80), (6, 100)]
    assert telnyx_frames(1, 3, 4, 5, 6, 2) == [(1, 0), (3, 40), (4, 60), (5, 80), (6, 100)]


def test_a_count_that_begins_anew_is_followed() -> None:
    assert [first for first, _ in telnyx_frames(255, 254, 1, 2)] == [255, 1, 2]


# --- documents ---------------------------------------------------------------------------------------


def test_the_answers_send_the_call_to_the_socket_with_the_token() -> None:
    url, incoming = "wss://host/x?a=1&b=2", Incoming("CA1")
    twilio = Twilio().answer(url, 't"k', incoming, None)
    assert twilio.content_type == "application/xml"
    assert twilio.body == (
        '<?xml version="1.0" encoding="UTF-8"?><Response><Connect><Stream url="wss://host/x?a=1&amp;b=2">'
        '<Parameter name="realtime_token" value=\'t"k\'/></Stream></Connect></Response>'
    )
    telnyx = Telnyx().answer(url, "tok", incoming, Codec("l16", 16_000)).body
    assert '<Parameter name="realtime_call" value="CA1"/>' in telnyx
    assert 'bidirectionalMode="rtp" bidirectionalCodec="L16" bidirectionalSamplingRate="16000"' in telnyx
    assert '<Parameter name="realtime_token" value="tok"/>' in telnyx
    [connect] = json.loads(Vonage().answer(url, "tok", incoming, None).body)
    assert connect["endpoint"] == [
        {
            "type": "websocket",
            "uri": url,
            "content-type": "audio/l16;rate=16000",
            "headers": {"realtime_token": "tok", "realtime_call": "CA1"},
            "authorization": {"type": "vonage"},
        }
    ]


# --- what nobody would send ---------------------------------------------------------------------------

BAD: list[tuple[str, Any]] = [
    ("twilio", "not json"),
    ("twilio", "[1]"),
    ("twilio", b"\x00"),
    ("twilio", {"event": "media", "media": {"payload": "***"}}),
    ("twilio", {"event": "media", "media": {"payload": 5}}),
    ("twilio", TWILIO_START),
    ("telnyx", TELNYX_START),
    ("telnyx", {"event": "media", "media": {}}),
    ("vonage", VONAGE_START),
    ("vonage", "not json"),
    ("asterisk", ASTERISK_START),
    ("asterisk", "{"),
    ("audiosocket", "text"),
    ("audiosocket", frame(0x01, ID.bytes)),
    ("audiosocket", frame(0x12, bytes(640))),
]


@pytest.mark.parametrize(("name", "message"), BAD)
def test_what_no_carrier_would_send_is_refused(name: str, message: Any) -> None:
    stream, _ = started(name)
    with pytest.raises(CarrierError):
        stream.decode(on_wire(message))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("twilio", {"event": "media", "media": {"payload": B64}}),
        ("twilio", {"event": "start"}),
        ("twilio", {**TWILIO_START, "start": {**TWILIO_START["start"], "mediaFormat": {"encoding": "audio/x-l16"}}}),  # type: ignore[dict-item]
        ("telnyx", {"event": "media", "media": {"payload": B64}}),
        ("telnyx", {**TELNYX_START, "start": {"call_control_id": "x", "media_format": {"encoding": "AMR-WB"}}}),
        ("vonage", L16),
        ("vonage", {**VONAGE_START, "content-type": "audio/l16;rate=8000"}),
        ("vonage", {"event": "websocket:connected"}),
        ("asterisk", L16),
        ("asterisk", ASTERISK_START.replace("slin16", "g722")),
        ("asterisk", ASTERISK_START.replace("640", "65501")),
        ("audiosocket", frame(0x10, L16)),
        ("audiosocket", frame(0x01, b"short")),
    ],
)
def test_a_beginning_that_cannot_be_is_refused(name: str, message: Any) -> None:
    with pytest.raises(CarrierError):
        STARTS[name][0].stream(None, {}).decode(on_wire(message))


TEXTS = st.text(max_size=20) | st.sampled_from(["start", "media", "mark", "dtmf", "stop", "MEDIA_START", "slin", B64])
NAMES = """event start media payload mark name dtmf digit streamSid callSid stream_id chunk call_control_id media_format
encoding sample_rate customParameters timestamp track format"""
KEYS = st.sampled_from(NAMES.split())
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)
MESSAGES = (
    st.dictionaries(KEYS, VALUES, max_size=6).map(lambda data: json.dumps(data))
    | TEXTS
    | st.binary(max_size=60)
    | st.sampled_from([on_wire(message) for _, message, _ in HEARD])
    | st.sampled_from([message for _, message in STARTS.values()])
)


def as_body(value: object) -> bytes:
    return json.dumps(value).encode()


@pytest.mark.parametrize("name", STARTS)
@given(st.lists(st.tuples(MESSAGES, st.integers(0, 400)), max_size=8))
@settings(max_examples=60)
def test_whatever_comes_nothing_but_a_carrier_error_escapes(name: str, messages: list[tuple[Message, int]]) -> None:
    """Any messages in any order, some of them cut short."""
    stream = STARTS[name][0].stream(None, {})
    for message, cut in messages:
        try:
            events = stream.decode(message[: len(message) - cut] if cut < len(message) else message)
        except CarrierError:
            return
        assert all(isinstance(event, Started | Audio | Key | Marked | Stopped | Hold) for event in events)


@pytest.mark.parametrize("name", STARTS)
@given(
    st.dictionaries(
        st.sampled_from(
            ["authorization", "x-twilio-signature", "telnyx-timestamp", "telnyx-signature-ed25519", "content-type"]
        ),
        st.text(max_size=40) | st.sampled_from(["Basic Og==", "Bearer a.b.c", "Bearer e30.e30.", "1", "Basic \xff"]),
    ),
    st.binary(max_size=60) | TEXTS.map(lambda text: text.encode("utf-8", "replace")) | VALUES.map(as_body),
    st.text(max_size=20),
)
@settings(max_examples=60)
def test_no_request_that_is_made_up_is_signed_and_none_is_too_odd(
    name: str, headers: dict[str, str], body: bytes, secret: str
) -> None:
    carrier = STARTS[name][0]
    request = WebRequest("POST", ["https://host/x"], headers, body, 1000.0)
    assert carrier.signed_socket(request, Secrets("a secret that nobody knows")) in (False, None)
    assert not carrier.signed_webhook(request, Secrets("a secret that nobody knows"))
    carrier.flaw(Secrets(secret, secret))
    try:
        carrier.incoming(request)
    except CarrierError:
        return
