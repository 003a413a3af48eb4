"""The telephone routes with a register that keeps who called, and nothing behind them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlencode

from fastapi import FastAPI
from starlette.testclient import TestClient, WebSocketDenialResponse

from media.pacer import Pacer
from realtime import problems
from realtime.proxies import TrustedProxies
from realtime.store.memory import MemoryStore
from signaling.telephony import routes
from signaling.telephony.asterisk import Asterisk
from signaling.telephony.audiosocket import AudioSocket
from signaling.telephony.carrier import Carrier, RestCall, Secrets
from signaling.telephony.expected import Expected
from signaling.telephony.leg import CarrierLeg
from signaling.telephony.routes import Line, TelephonyRoutes, telephony_routes
from signaling.telephony.telnyx import Telnyx
from signaling.telephony.twilio import Twilio
from signaling.telephony.vonage import Vonage
from tests.calls import dialects, phone
from tests.signaling.fakes import FakeCalls

SECRET = phone.SECRET
TELNYX, VONAGE = dialects.Telnyx(), dialects.Vonage()
PREFIX = routes.PREFIX
FORM = {"CallSid": "CA1", "From": "+15550001111", "To": "+15552223333", "AccountSid": "AC1"}
FORM_TYPE = {"content-type": "application/x-www-form-urlencoded"}
Headers = dict[str, str]


class PhoneCalls(FakeCalls):
    """A register of calls that may have a greeting."""

    async def open(self, leg: Any, claims: Any, session: Any, caller: Any = None, *, place: Any, greeting: Any) -> Any:  # type: ignore[override]
        return await super().open(leg, claims, session, caller, place=place)


class House:
    """The routes and nothing behind them, asked by `client` (an address) at `http://voice.example`."""

    def __init__(
        self, *, public_url: str | None = None, client: str = "203.0.113.9", api_key: str = "none", **line: Any
    ) -> None:
        self.calls = PhoneCalls()
        self.rest: list[tuple[str, RestCall]] = []
        self.status = 200
        kinds: dict[str, tuple[Carrier, Secrets]] = {
            "twilio": (Twilio(), Secrets(SECRET)),
            "telnyx": (Telnyx(), Secrets(TELNYX.public_key, "KEY01")),
            "vonage": (Vonage(), Secrets(VONAGE.secret, api_key)),
            "asterisk": (Asterisk(), Secrets("password")),
            "audiosocket": (AudioSocket(), Secrets("password")),
        }
        handlers = TelephonyRoutes(
            lines={name: Line(name, carrier, secrets, **line) for name, (carrier, secrets) in kinds.items()},
            calls=self.calls,  # type: ignore[arg-type]
            expected=Expected(MemoryStore()),
            pacer=Pacer(),
            public_url=public_url,
            rest=self._rest,
        )
        app = FastAPI()
        app.include_router(telephony_routes(handlers))
        app.add_middleware(TrustedProxies, trusted=["10.0.0.0/8"])
        problems.install(app)
        self.http = TestClient(app, base_url="http://voice.example", client=(client, 5))

    async def _rest(self, base: str, call: RestCall) -> int:
        self.rest.append((base, call))
        return self.status

    def answer(self, name: str, body: bytes, headers: Mapping[str, str]) -> int:
        self.last = self.http.post(f"{PREFIX}/{name}/answer", content=body, headers=dict(headers))
        return self.last.status_code

    def twilio(self, signed_url: str, *, form: Headers = FORM, secret: str = SECRET, **headers: str) -> int:
        given = {"x-twilio-signature": phone.signature(signed_url, form, secret), **FORM_TYPE}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.answer("twilio", urlencode(form).encode(), given)

    def socket(self, name: str, headers: Mapping[str, str | bytes] = {}, *first: str | bytes) -> int:
        """The status of the upgrade (101 when it was accepted), or the code that it was closed with after `first`."""
        try:
            with self.http.websocket_connect(f"ws://voice.example{PREFIX}/{name}", headers=dict(headers)) as socket:
                for message in first:
                    socket.send_text(message) if isinstance(message, str) else socket.send_bytes(message)
                return int(socket.receive()["code"]) if first else 101
        except WebSocketDenialResponse as refusal:
            return refusal.status_code


def url(scheme: str = "http", host: str = "voice.example", tail: str = "/answer", name: str = "twilio") -> str:
    return f"{scheme}://{host}{PREFIX}/{name}{tail}"


SOCKET = url("ws", tail="")


def upgrade(signed: str = SOCKET, secret: str = SECRET) -> Headers:
    return {"x-twilio-signature": phone.signature(signed, {}, secret)}


def start(token: str, call: str = "CA1") -> str:
    parameters = {"realtime_token": token, "plan": "gold"}
    return json.dumps(
        {"event": "start", "start": {"streamSid": "MZ1", "callSid": call, "customParameters": parameters}}
    )


def announced(house: House) -> str:
    assert house.twilio(url()) == 200
    return phone.token_in(house.last.text)


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def twilio_leg(house: House) -> CarrierLeg:
    token = announced(house)
    with house.http.websocket_connect(f"ws://voice.example{PREFIX}/twilio", headers=upgrade()) as socket:
        socket.send_text(start(token))
        socket.send_text(json.dumps({"event": "stop"}))
        assert socket.receive()["type"] == "websocket.close"
    return cast(CarrierLeg, house.calls.opened[-1].leg)
