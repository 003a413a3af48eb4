"""A telephone: simulated Twilio calls against a running server, placed by streamdouble.

    report = await ring(server, saying(CLIP))    a whole call by streamdouble, and its report

The number's webhook is asked first, signed as Twilio signs it; the token in its answer goes into the call.
`CONFIG` is what the server's settings need; streamdouble sends no signature on the socket.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import wave
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
from streamdouble.api import CallReport
from streamdouble.metrics import compute
from streamdouble.protocol import StreamIdentity
from streamdouble.scenario import Say, Scenario, Step
from streamdouble.session import Session, SessionConfig

from media.audio import Pcm
from media.g711 import ulaw_decode, ulaw_encode
from media.resample import Resampler
from tests.calls.server import Server

SECRET = "twilio-auth-token-of-the-tests"
ENVIRON = {"TWILIO_AUTH_TOKEN": SECRET}
CONFIG = """
[telephony.twilio]
socket_signature = "if-present"
"""
PATH = "/v1/ai/realtime/telephony/twilio"
CALLER, DIALLED = "+15550001111", "+15552223333"


def signature(url: str, form: dict[str, str] | None = None, secret: str = SECRET) -> str:
    text = url + "".join(f"{name}{value}" for name, value in sorted((form or {}).items()))
    return base64.b64encode(hmac.new(secret.encode(), text.encode(), hashlib.sha1).digest()).decode()


async def announce(
    server: Server, call_sid: str, *, path: str = PATH, number: str = CALLER, dialled: str = DIALLED, **form: str
) -> tuple[int, str]:
    """The webhook: its status and its document."""
    fields = {"CallSid": call_sid, "From": number, "To": dialled, "AccountSid": "AC1", **form}
    url = f"{server.url}{path}/answer"
    status, _, body = await server.request(
        "POST",
        f"{path}/answer",
        urlencode(fields).encode(),
        credential=None,
        content_type="application/x-www-form-urlencoded",
        x_twilio_signature=signature(url, fields),
    )
    return status, body.decode()


def token_in(document: str) -> str:
    found = re.search(r'name="realtime_token" value="([^"]+)"', document)
    assert found, document
    return found[1]


async def ring(server: Server, *steps: Step, **config: Any) -> CallReport:
    """A whole call by streamdouble: the webhook first, then the socket. `config`: of streamdouble's `SessionConfig`."""
    identity = StreamIdentity()
    status, document = await announce(server, identity.call_sid)
    assert status == 200, document
    url = re.search(r'<Stream url="([^"]+)"', document)
    assert url, document
    patience = {"response_timeout_s": 15.0, "quiet_period_s": 1.0, "max_drain_s": 20.0}
    settings = SessionConfig(custom_parameters={"realtime_token": token_in(document)}, **{**patience, **config})
    scenario = Scenario("call", list(steps))
    result = await Session(url[1], scenario=scenario, config=settings, identity=identity).run()
    return CallReport(result, compute(result))


def saying(clip: Path) -> Say:
    """A 16 kHz clip as the caller's voice."""
    with wave.open(str(clip)) as file:
        pcm = np.frombuffer(file.readframes(file.getnframes()), np.int16)
    data = ulaw_encode(Resampler(16_000, 8_000).push(pcm))
    return Say(clip, [data[at : at + 160].ljust(160, b"\xff") for at in range(0, len(data), 160)])


def pcm_of(report: CallReport) -> Pcm:
    """What the caller heard, 8 kHz."""
    return ulaw_decode(report.audio_received)
