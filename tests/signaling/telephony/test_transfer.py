"""Callers passed on: what each carrier's own interface is asked."""

from __future__ import annotations

import json
from typing import cast
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from signaling.telephony.carrier import CarrierError
from signaling.telephony.leg import CarrierLeg
from tests.calls import dialects
from tests.signaling.telephony.house import (
    PREFIX,
    SECRET,
    TELNYX,
    VONAGE,
    House,
    basic,
    twilio_leg,
)


def leg_of(house: House, name: str) -> CarrierLeg:
    """The leg of a call that was opened, and closed again by the carrier."""
    dialect: dialects.Dialect = {"telnyx": TELNYX, "vonage": VONAGE}[name]
    webhook = dialect.webhook("CALL/1")
    headers = {header.replace("_", "-"): value for header, value in webhook.headers.items()} if webhook else {}
    assert house.answer(name, webhook.body if webhook else b"", headers) == 200
    answer = dialect.answer(house.last.text)
    with house.http.websocket_connect(f"ws://voice.example{PREFIX}/{name}", headers=dict(answer.headers)) as socket:
        for message in dialect.start("CALL/1", answer):
            socket.send_text(str(message))
        socket.send_text("not json")
        assert socket.receive()["type"] == "websocket.close"
    return cast(CarrierLeg, house.calls.opened[-1].leg)


async def test_twilio_and_telnyx_are_given_another_document() -> None:
    house = House()
    await twilio_leg(house).transfer("+15550002222")
    await leg_of(house, "telnyx").transfer("sip:desk@pbx.example?a&b")
    (base, call), (telnyx_base, telnyx_call) = house.rest
    assert (base, call.method) == ("https://api.twilio.com", "POST")
    assert call.path == "/2010-04-01/Accounts/AC1/Calls/CA1.json"
    assert call.headers["Authorization"] == basic("AC1", SECRET)
    assert parse_qs(call.body.decode()) == {"Twiml": ["<Response><Dial>+15550002222</Dial></Response>"]}
    assert (telnyx_base, telnyx_call.path) == ("https://api.telnyx.com", "/v2/texml/Accounts/f558/Calls/CALL%2F1")
    assert telnyx_call.headers["Authorization"] == "Bearer KEY01"
    assert json.loads(telnyx_call.body) == {
        "Texml": "<Response><Dial><Sip>sip:desk@pbx.example?a&amp;b</Sip></Dial></Response>"
    }


async def test_vonage_is_given_another_ncco_signed_with_the_applications_key() -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(encoding, form, serialization.NoEncryption()).decode()
    house = House(api_key=pem)
    await leg_of(house, "vonage").transfer("+15550002222")
    [(base, call)] = house.rest
    assert (base, call.method, call.path) == ("https://api.nexmo.com", "PUT", "/v1/calls/CALL%2F1")
    claims = jwt.decode(call.headers["Authorization"].removeprefix("Bearer "), key.public_key(), algorithms=["RS256"])
    assert claims["application_id"] == "aaaa"
    body = json.loads(call.body)
    assert body["action"] == "transfer"
    assert body["destination"]["ncco"][0]["endpoint"] == [{"type": "phone", "number": "15550002222"}]


def test_a_key_that_is_none_makes_calls_that_cannot_be_transferred() -> None:
    assert not leg_of(House(api_key="not a key"), "vonage").abilities.transfer


async def test_a_transfer_that_the_carrier_refuses_is_an_error() -> None:
    house = House()
    leg = twilio_leg(house)
    house.status = 404
    with pytest.raises(CarrierError, match="HTTP 404"):
        await leg.transfer("+15550002222")
