"""The far ends of Twilio, Telnyx and Vonage by other hands: pipecat writes and reads the audio of whole calls, the
carriers' own libraries sign, verify and make documents. What we send they read; what they send we read."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from media.resample import Resampler
from realtime.client.talk import read_audio
from signaling.telephony.carrier import Incoming, Secrets, WebRequest
from signaling.telephony.twilio import Twilio
from signaling.telephony.vonage import Vonage as VonageCarrier
from tests.calls import carriers, phone
from tests.calls.conftest import HOW_ARE_YOU
from tests.calls.dialects import Telnyx, Vonage
from tests.calls.server import Server
from tests.interop.conftest import DRIVERS
from tests.media.webrtc import loudest_hz

TELNYX, VONAGE = Telnyx(), Vonage()
CONFIG = f"""
{phone.CONFIG}
[telephony.telnyx]
secret = "env:TELNYX_PUBLIC_KEY"
[telephony.vonage]
secret = "env:VONAGE_SIGNATURE_SECRET"
"""
ENVIRON = {**phone.ENVIRON, "TELNYX_PUBLIC_KEY": TELNYX.public_key, "VONAGE_SIGNATURE_SECRET": Vonage.secret}
CALL_S = 60.0

Ask = Callable[[str, Any], Any]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("carriers")
    with Server(folder, "--engines", "instant", config=CONFIG, environ=ENVIRON) as running:
        yield running


@pytest.fixture(scope="module")
def ask(environment: Callable[[str], Path]) -> Ask:
    """What the driver makes of an order, among the carriers' libraries."""
    python = environment("carriers") / "bin" / "python"
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(work: str, order: Any) -> Any:
        command = [str(python), str(DRIVERS / "carriers.py"), work]
        text = json.dumps(order)
        done = subprocess.run(command, input=text, env=variables, capture_output=True, text=True, timeout=CALL_S)
        assert done.returncode == 0, done.stderr[-4000:]
        return json.loads(done.stdout)

    return run


async def order_of(line: Server, carrier: str) -> dict[str, Any]:
    """The webhook is asked; where the call goes, and how it begins."""
    call_id = f"pipecat-{carrier}-{time.monotonic_ns()}"
    if carrier == "twilio":
        _, document = await phone.announce(line, call_id)
        parameters = {"realtime_token": phone.token_in(document)}
        start = {"streamSid": "MZ1", "callSid": call_id, "customParameters": parameters}
        url = f"{line.url.replace('http', 'ws')}{phone.PATH}"
        return {"url": url, "headers": {}, "start": [json.dumps({"event": "start", "start": start})]}
    dialect = TELNYX if carrier == "telnyx" else VONAGE
    status, document = await carriers.announce(line, dialect, call_id)
    assert status == 200, document
    answer = dialect.answer(document)
    return {"url": answer.url, "headers": dict(answer.headers), "start": dialect.start(call_id, answer)}


def speech(folder: Path, *, after_s: float | None = None) -> Path:
    """The clip as 16 kHz samples; once more `after_s` seconds later."""
    pcm = Resampler(24_000, 16_000).push(read_audio(HOW_ARE_YOU))
    if after_s is not None:
        pcm = np.concatenate([pcm, np.zeros(int(16_000 * after_s), np.int16), pcm])
    path = folder / "clip.pcm"
    path.write_bytes(pcm.tobytes())
    return path


@pytest.mark.parametrize("carrier", ["twilio", "telnyx", "vonage"])
def test_pipecat_speaks_to_us_and_hears_the_answer(line: Server, ask: Ask, carrier: str, tmp_path: Path) -> None:
    order = asyncio.run(order_of(line, carrier))
    told = ask("call", {**order, "carrier": carrier, "clip": str(speech(tmp_path))})
    heard = np.frombuffer(base64.b64decode(told["pcm"]), np.int16)
    assert told["unread"] == []
    assert told["flushes"] == []
    assert told["bytes"] / (32_000 if carrier == "vonage" else 8_000) == pytest.approx(5.0, abs=0.02)
    assert 4.4 < len(heard) / 16_000 < 5.1, "its resampler keeps up to half a second back"
    assert abs(loudest_hz(heard, 16_000) - 440) < 5


@pytest.mark.parametrize("carrier", ["twilio", "telnyx", "vonage"])
def test_our_flush_is_the_one_that_pipecat_sends(line: Server, ask: Ask, carrier: str, tmp_path: Path) -> None:
    order = asyncio.run(order_of(line, carrier))
    told = ask("call", {**order, "carrier": carrier, "clip": str(speech(tmp_path, after_s=2.5))})
    assert told["flushes"] == [told["their_flush"]]
    assert told["unread"] == []


# --- signatures -------------------------------------------------------------------------------------

URL = "https://voice.example/v1/ai/realtime/telephony/twilio"
FORMS: list[dict[str, str]] = [
    {},
    {"CallSid": "CA1", "From": "+15550001111", "To": "+15552223333"},
    {"b": "2", "B": "1", "empty": "", "plus": "a+b c%20", "Ünï": "çødé 🎉"},
]


def twilio_request(url: str, signature: str, body: Mapping[str, str], algorithm: str | None) -> WebRequest:
    from urllib.parse import urlencode

    headers = {"x-twilio-signature": signature}
    if algorithm:
        headers["x-twilio-webhooks-signature-settings"] = f"key=webhooks_sharedkey_1,algorithm={algorithm}"
    return WebRequest("POST", [url], headers, urlencode(body).encode())


def test_what_twilios_library_signs_is_good_and_nothing_else(ask: Ask) -> None:
    cases = [
        (url, form, algorithm)
        for url in (URL, f"{URL}?a=b&c=%20", URL.replace("https", "wss"))
        for form in FORMS
        for algorithm in (None, "HMAC_SHA1", "HMAC_SHA256")
    ]
    signatures = ask("sign", [["twilio", "secret", *case] for case in cases])
    for (url, form, algorithm), signature in zip(cases, signatures, strict=True):
        good = twilio_request(url, signature, form, algorithm)
        assert Twilio().signed_webhook(good, Secrets("secret"))
        assert not Twilio().signed_webhook(good, Secrets("another"))
        assert not Twilio().signed_webhook(twilio_request(f"{url}x", signature, form, algorithm), Secrets("secret"))
        more = twilio_request(url, signature, {**form, "x": "y"}, algorithm)
        assert not Twilio().signed_webhook(more, Secrets("secret"))
        other = "HMAC_SHA256" if algorithm != "HMAC_SHA256" else "HMAC_SHA1"
        assert not Twilio().signed_webhook(twilio_request(url, signature, form, other), Secrets("secret"))
        md5 = twilio_request(url, signature, form, "HMAC_MD5")
        assert not Twilio().signed_webhook(md5, Secrets("secret"))


def test_the_requests_of_our_tests_are_what_telnyx_and_vonage_verify(ask: Ask) -> None:
    """Neither library signs; what both verify here is what the server's tests send."""
    body = TELNYX.webhook("v3:1").body
    headers = {name.replace("_", "-"): value for name, value in TELNYX.signed(body).items()}
    text, key = body.decode(), TELNYX.public_key
    stale = {name.replace("_", "-"): value for name, value in TELNYX.signed(body, time.time() - 301).items()}
    token = VONAGE.signed()
    assert ask(
        "sign",
        [
            ["telnyx", text, headers, key],
            ["telnyx", f"{text}&x=y", headers, key],
            ["telnyx", text, headers, Telnyx().public_key],
            ["telnyx", text, stale, key],
            ["vonage", token, Vonage.secret],
            ["vonage", token, "another secret, as long as this has to be"],
        ],
    ) == [True, False, False, False, True, False]


def test_our_ncco_is_what_vonages_models_make(ask: Ask) -> None:
    document = VonageCarrier().answer("wss://host/x", "tok", Incoming("CON-1", dialled="15552223333"), None)
    theirs = ask(
        "ncco",
        {
            "from": "15552223333",
            "uri": "wss://host/x",
            "content_type": "audio/l16;rate=16000",
            "headers": {"realtime_token": "tok", "realtime_call": "CON-1"},
        },
    )
    assert json.loads(document.body) == theirs
