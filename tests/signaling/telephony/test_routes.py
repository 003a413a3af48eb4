"""Who gets in: the webhook's signature, the socket's before it is accepted, `start` in time, a token that
works once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from contextlib import ExitStack
from urllib.parse import urlencode

import jwt
import pytest

from signaling.telephony import routes
from tests.calls import dialects, phone
from tests.signaling.telephony.house import (
    FORM,
    FORM_TYPE,
    PREFIX,
    SECRET,
    TELNYX,
    VONAGE,
    Headers,
    House,
    announced,
    basic,
    start,
    twilio_leg,
    upgrade,
    url,
)

# --- Twilio: which address was signed ---------------------------------------------------------------


@pytest.mark.parametrize("host", ["voice.example", "voice.example:80"])
def test_the_address_of_the_request_is_what_must_be_signed_with_or_without_its_port(host: str) -> None:
    assert House().twilio(url(host=host)) == 200


@pytest.mark.parametrize(
    "signed",
    [
        url("https"),
        url(host="voice.example:443"),
        url(host="other.example"),
        url(host="voice.example.evil"),
        url(tail=""),
        url(tail="/answer?x=1"),
        url(name="telnyx"),
    ],
)
def test_another_address_is_not_it(signed: str) -> None:
    assert House().twilio(signed) == 403


def test_with_a_public_url_only_that_counts_whatever_the_request_says() -> None:
    house = House(public_url="https://phone.example")
    assert house.twilio(url("https", "phone.example")) == 200
    assert 'url="wss://phone.example/' in house.last.text
    assert house.twilio(url("https", "phone.example:443")) == 200
    assert house.twilio(url("https", "phone.example"), host="evil.example") == 200
    assert house.twilio(url("https", "evil.example"), host="evil.example") == 403
    assert house.twilio(url("https", "phone.example:8443")) == 403
    assert house.twilio(url()) == 403


def test_an_explicit_port_may_be_signed_or_not() -> None:
    house = House(public_url="https://phone.example:8443/voice")
    for host in ("phone.example:8443", "phone.example"):
        assert house.twilio(f"https://{host}/voice{PREFIX}/twilio/answer") == 200
    assert f'url="wss://phone.example:8443/voice{PREFIX}/twilio"' in house.last.text
    assert house.twilio(f"https://phone.example:443/voice{PREFIX}/twilio/answer") == 403


FORWARDED = {"x_forwarded_host": "phone.example", "x_forwarded_proto": "https", "x_forwarded_for": "198.51.100.7"}


def test_what_a_trusted_proxy_forwards_is_the_address() -> None:
    house = House(client="10.1.2.3")
    assert house.twilio(url("https", "phone.example"), **FORWARDED) == 200
    assert 'url="wss://phone.example/' in house.last.text
    assert house.twilio(url(), **FORWARDED) == 403


def test_forged_forwarded_headers_change_nothing() -> None:
    house = House()
    assert house.twilio(url("https", "phone.example"), **FORWARDED) == 403
    assert house.twilio(url(), **FORWARDED) == 200
    assert 'url="ws://voice.example/' in house.last.text


def test_the_shared_key_signs_with_sha_256_and_says_so() -> None:
    def settings(algorithm: str) -> Headers:
        return {"x_twilio_webhooks_signature_settings": f"key=webhooks_sharedkey_1,algorithm={algorithm}"}

    house = House()
    good = sha256(url(), FORM)
    assert house.twilio(url(), x_twilio_signature=good, **settings("HMAC_SHA256")) == 200
    assert house.twilio(url(), x_twilio_signature=good) == 403, "it would be SHA-1"
    assert house.twilio(url(), **settings("HMAC_SHA256")) == 403
    assert house.twilio(url(), **settings("HMAC_SHA1")) == 200
    assert house.twilio(url(), **settings("none")) == 403


def sha256(signed: str, form: Headers) -> str:
    text = signed + "".join(f"{name}{value}" for name, value in sorted(form.items()))
    return base64.b64encode(hmac.new(SECRET.encode(), text.encode(), hashlib.sha256).digest()).decode()


# --- the webhooks of the others ----------------------------------------------------------------------


def telnyx_headers(body: bytes, at: float | None = None, signer: dialects.Telnyx = TELNYX) -> Headers:
    return {**FORM_TYPE, **{name.replace("_", "-"): value for name, value in signer.signed(body, at).items()}}


def test_telnyx_signs_the_body_and_the_time() -> None:
    house, body, now = House(), urlencode(FORM).encode(), time.time()
    assert house.answer("telnyx", body, telnyx_headers(body)) == 200
    assert house.answer("telnyx", body, telnyx_headers(body, now - 290)) == 200
    good = telnyx_headers(body)
    for wrong in (
        telnyx_headers(body, now - 310),
        telnyx_headers(body, now + 310),
        telnyx_headers(body + b"&x=y"),
        telnyx_headers(body, signer=dialects.Telnyx()),
        {**good, "telnyx-timestamp": str(int(now) - 1)},
        {**good, "telnyx-timestamp": "1e9"},
        {**good, "telnyx-timestamp": "9" * 400},
        {**good, "telnyx-signature-ed25519": "AAAA"},
        {**good, "telnyx-signature-ed25519": "not base64"},
        FORM_TYPE,
    ):
        assert house.answer("telnyx", body, wrong) == 403, wrong


def test_vonage_signs_a_token_that_holds_the_bodys_hash() -> None:
    house, now = House(), time.time()
    webhook = VONAGE.webhook("CON-1")
    digest = hashlib.sha256(webhook.body).hexdigest()

    def status(token: str, scheme: str = "Bearer") -> int:
        return house.answer("vonage", webhook.body, {"authorization": f"{scheme} {token}"})

    def signed(**claims: object) -> str:
        return VONAGE.signed(**{"payload_hash": digest, **claims})  # type: ignore[arg-type]

    assert status(signed()) == 200
    assert status(signed(), "bearer") == 200
    assert status(signed(at=now - 290)) == 200
    for wrong in (
        signed(at=now - 310),
        signed(at=now + 310),
        signed(secret="another secret that is as long as it has to be"),
        signed(payload_hash=hashlib.sha256(b"another body").hexdigest()),
        signed(payload_hash=None),
        signed(iat="now"),
        signed(iat=True),
        signed(exp=int(now) - 10),
        jwt.encode({"iat": int(now), "payload_hash": digest}, None, "none"),
        jwt.encode({"iat": int(now), "payload_hash": digest}, VONAGE.secret * 2, "HS512"),
        jwt.encode({"payload_hash": digest}, VONAGE.secret, "HS256"),
        "a.b.c",
        "x" * 5000,
        "",
    ):
        assert status(wrong) == 403, wrong
    assert status(signed(), "Basic") == 403


def test_a_pbx_proves_itself_by_its_password() -> None:
    house = House()
    for good in ({"authorization": "Bearer password"}, {"authorization": basic("any", "password")}):
        assert house.answer("audiosocket", b"number=1", {**FORM_TYPE, **good}) == 200
    assert house.answer("audiosocket", b"secret=password&number=1", FORM_TYPE) == 200
    for body, headers in (
        (b"number=1", {}),
        (b"secret=passwor", {}),
        (b"secret=", {}),
        (b"secret=password", {"authorization": "Bearer wrong"}),
        (b"number=1", {"authorization": "Basic ***"}),
    ):
        assert house.answer("audiosocket", body, {**FORM_TYPE, **headers}) == 403, (body, headers)
    assert house.answer("asterisk", b"", {"authorization": basic("any", "password")}) in (404, 422)


@pytest.mark.parametrize(
    ("name", "body"),
    [("twilio", b"From=1"), ("twilio", b""), ("telnyx", b"From=1"), ("vonage", b"[]"), ("vonage", b"{}")],
)
def test_a_signed_webhook_that_is_no_call_is_refused(name: str, body: bytes) -> None:
    house = House()
    form = dict(pair.split("=") for pair in body.decode().split("&")) if b"=" in body else {}
    headers: Headers = {
        "twilio": {"x-twilio-signature": phone.signature(url(), form)},
        "telnyx": telnyx_headers(body),
        "vonage": {"authorization": f"Bearer {VONAGE.signed(payload_hash=hashlib.sha256(body).hexdigest())}"},
    }[name]
    assert house.answer(name, body, {**FORM_TYPE, **headers}) == 422
    assert "Traceback" not in house.last.text


def test_a_webhook_is_bounded_and_its_line_must_be_there() -> None:
    house = House()
    assert house.answer("twilio", b"x" * 70_000, FORM_TYPE) == 413
    assert house.answer("nobody", b"", FORM_TYPE) == 404
    assert house.socket("nobody") == 404


# --- the socket --------------------------------------------------------------------------------------


def test_a_socket_is_signed_too_and_refused_before_it_is_accepted() -> None:
    house = House()
    assert house.socket("twilio", upgrade()) == 101
    assert house.socket("twilio", upgrade(url("ws", "voice.example:80", ""))) == 101
    for wrong in (
        {},
        upgrade(secret="another"),
        upgrade(url(tail="")),
        upgrade(url("wss", tail="")),
        upgrade(url("ws", "other.example", "")),
        upgrade(url("ws")),
        {"x-twilio-signature": b"\xe9"},
    ):
        assert house.socket("twilio", wrong) == 403, wrong


def test_behind_a_proxy_the_public_socket_is_what_is_signed() -> None:
    signed = upgrade(url("wss", "phone.example", ""))
    forwarded = {name.replace("_", "-"): value for name, value in FORWARDED.items()}
    assert House(public_url="https://phone.example").socket("twilio", signed) == 101
    assert House(client="10.1.2.3").socket("twilio", {**signed, **forwarded}) == 101
    assert House().socket("twilio", {**signed, **forwarded}) == 403


def test_where_the_signature_may_be_missing_a_wrong_one_is_still_refused() -> None:
    house = House(needs_socket_signature=False)
    assert house.socket("twilio") == 101
    assert house.socket("twilio", upgrade(secret="another")) == 403
    assert house.socket("vonage") == 101
    assert house.socket("vonage", {"authorization": "Bearer nonsense"}) == 403


def test_the_sockets_of_the_others() -> None:
    house, now = House(), time.time()
    assert house.socket("telnyx") == 101, "Telnyx signs no sockets: the token guards them"
    assert house.socket("vonage", {"authorization": f"Bearer {VONAGE.signed()}"}) == 101
    assert house.socket("vonage", {"authorization": f"Bearer {VONAGE.signed(at=now - 310)}"}) == 403
    assert house.socket("vonage") == 403
    for name in ("asterisk", "audiosocket"):
        assert house.socket(name, {"authorization": basic("realtime", "password")}) == 101
        assert house.socket(name, {"authorization": basic("realtime", "wrong")}) == 403
        assert house.socket(name) == 403
        assert House(needs_socket_signature=False).socket(name) == (403 if name == "asterisk" else 101)


def test_a_call_opens_with_its_token_once() -> None:
    house = House(agent="desk", numbers={"+15552223333": "sales"})
    token = announced(house)
    with house.http.websocket_connect(f"ws://voice.example{PREFIX}/twilio", headers=upgrade()) as socket:
        socket.send_text(start(token))
        socket.send_text(json.dumps({"event": "stop"}))
        assert socket.receive()["type"] == "websocket.close"
    [call], [caller] = house.calls.opened, house.calls.callers
    assert (caller.number, caller.dialled, caller.carrier) == ("+15550001111", "+15552223333", "twilio")
    assert caller.parameters["plan"] == "gold"
    assert "realtime_token" not in caller.parameters
    assert call.claims.agent == "sales"
    house.calls.opened.clear()
    assert house.socket("twilio", upgrade(), start(token)) == 1008, "a token works once"
    assert house.twilio(url()) == 409, "a webhook whose call was opened is a replay"


def test_a_token_is_for_its_line_and_its_call() -> None:
    house = House()
    assert house.socket("twilio", upgrade(), start(announced(house), "CA2")) == 1008
    body = urlencode(FORM).encode()
    assert house.answer("telnyx", body, telnyx_headers(body)) == 200
    assert house.socket("twilio", upgrade(), start(phone.token_in(house.last.text))) == 1008
    assert house.socket("twilio", upgrade(), start("")) == 1008
    assert house.socket("twilio", upgrade(), start("nonsense")) == 1008
    assert house.calls.opened == []
    assert house.calls.reserved == 0


def test_a_socket_that_never_starts_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert routes.START_S == 5
    monkeypatch.setattr(routes, "START_S", 0.05)
    house = House()
    assert house.socket("twilio", upgrade(), json.dumps({"event": "connected"})) == 1008
    assert house.calls.reserved == 0


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([json.dumps({"event": "connected"})] * 8, 1002),
        (["x" * 70_000], 1002),
        ([b"\x00" * 70_000], 1002),
        (["not json"], 1002),
        ([b"\x00"], 1002),
        ([json.dumps({"event": "media", "media": {"payload": "AAAA"}})], 1002),
        ([json.dumps({"event": "stop"})], 1002),
    ],
)
def test_what_comes_before_start_is_little_and_known(messages: list[str | bytes], code: int) -> None:
    house = House()
    assert house.socket("twilio", upgrade(), *messages) == code
    assert house.calls.opened == []
    assert house.calls.reserved == 0


def test_sockets_that_have_proved_nothing_take_no_place_and_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "MAX_UNPROVED", 2)
    house = House()
    house.calls.limit = 1
    with ExitStack() as waiting:
        for _ in range(2):
            waiting.enter_context(house.http.websocket_connect(f"ws://voice.example{PREFIX}/telnyx"))
        assert house.socket("telnyx") == 503
        twilio_leg(house)
        assert len(house.calls.opened) == 1
    assert house.socket("telnyx") == 101


def test_a_house_that_is_full_by_the_time_the_token_comes_closes_the_socket() -> None:
    house = House()
    token = announced(house)
    with house.http.websocket_connect(f"ws://voice.example{PREFIX}/twilio", headers=upgrade()) as socket:
        house.calls.limit = 0
        socket.send_text(start(token))
        assert socket.receive()["code"] == 1013
    assert house.calls.opened == []


def test_a_full_house_refuses_the_socket_before_it_is_accepted() -> None:
    house = House()
    house.calls.limit = 0
    assert house.socket("twilio", upgrade()) == 503
