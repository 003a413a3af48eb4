"""The telephone lines of the settings: what may stand there, what a line becomes, requests to carriers' interfaces."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from realtime.settings import Settings, SettingsError, load
from realtime.telephone import lines, rest
from signaling.telephony.carrier import PCMU, Codec, RestCall
from signaling.telephony.carriers import CARRIERS

SECRET = 'secret = "env:SECRET"\n'


def loaded(tmp_path: Path, text: str, **environ: str) -> Settings:
    path = tmp_path / "realtime.toml"
    path.write_text(text, encoding="utf-8")
    return load(path, {"SECRET": "s3cret", **environ})


@pytest.mark.parametrize(
    ("text", "where", "message", "proposal"),
    [
        (f"[telephony.phone]\n{SECRET}", "telephony.phone", "the name of no carrier", "twilio"),
        (f'[telephony.phone]\ncarrier = "twillio"\n{SECRET}', "telephony.phone.carrier", "no carrier", "`twilio`"),
        ("[telephony.twilio]", "telephony.twilio", "without a secret", "env:NAME"),
        (f'[telephony.twilio]\ncodec = "l16/16000"\n{SECRET}', "telephony.twilio.codec", "has no codec", "pcmu"),
        (f'[telephony.vonage]\ncodec = "pcmu"\n{SECRET}', "telephony.vonage.codec", "has no codec", "l16/16000"),
        (f'[telephony.asterisk]\ncodec = "pcmu"\n{SECRET}', "telephony.asterisk.codec", "chosen at the side", "leave"),
        (f'[telephony.telnyx]\ncodec = "mp3"\n{SECRET}', "telephony.telnyx.codec", "has no codec", "pcma"),
        (f'[telephony.twilio]\nagent = "nobody"\n{SECRET}', "telephony.twilio.agent", "no agent", "default"),
        (
            f'[telephony.twilio]\nnumbers = {{"+1555" = "nobody"}}\n{SECRET}',
            'telephony.twilio.numbers."+1555"',
            "no agent",
            "default",
        ),
    ],
)
def test_a_line_that_cannot_be_is_named(tmp_path: Path, text: str, where: str, message: str, proposal: str) -> None:
    with pytest.raises(SettingsError) as error:
        loaded(tmp_path, text)
    [mistake] = error.value.mistakes
    assert mistake.where == where
    assert message in mistake.message
    assert proposal in (mistake.proposal or "")


@pytest.mark.parametrize("name", CARRIERS)
def test_every_codec_that_a_carrier_has_may_be_asked_for(tmp_path: Path, name: str) -> None:
    assert lines(loaded(tmp_path, f"[telephony.{name}]\n{SECRET}"))[name].codec is None
    for codec in CARRIERS[name].codecs:
        text = f'[telephony.a]\ncarrier = "{name}"\ncodec = "{codec.name}"\n{SECRET}'
        assert lines(loaded(tmp_path, text))["a"].codec == codec


def test_a_line_is_what_the_settings_say(tmp_path: Path) -> None:
    text = f"""
[agents.sales]
[telephony.desk]
carrier = "telnyx"
{SECRET}api_key = "env:KEY"
api_url = "http://127.0.0.1:9"
numbers = {{"+1555" = "sales"}}
greeting = "Hello."
codec = "pcma"
socket_signature = "if-present"
silence_seconds = 30
[limits]
inactivity_seconds = 7
"""
    line = lines(loaded(tmp_path, text, KEY="k3y"))["desk"]
    assert line.carrier.name == "telnyx"
    assert line.secrets is not None
    assert (line.secrets.main, line.secrets.api_key) == ("s3cret", "k3y")
    assert (line.agent_for("+1555"), line.agent_for("+1666"), line.agent_for(None)) == ("sales", "default", "default")
    assert (line.greeting, line.codec, line.needs_socket_signature) == ("Hello.", Codec("pcma"), False)
    assert (line.patience.inactivity_s, line.patience.silence_s) == (7, 30)


def test_twilios_token_in_the_environment_is_a_line_and_the_secret_of_those_without(tmp_path: Path) -> None:
    alone = lines(loaded(tmp_path, "", TWILIO_AUTH_TOKEN="token"))["twilio"]
    assert alone.secrets is not None
    assert alone.secrets.main == "token"
    assert alone.carrier.codecs == (PCMU,)
    text = f'[telephony.other]\ncarrier = "twilio"\n[telephony.own]\ncarrier = "twilio"\n{SECRET}'
    found = {name: line.secrets for name, line in lines(loaded(tmp_path, text, TWILIO_AUTH_TOKEN="token")).items()}
    assert {name: secrets.main for name, secrets in found.items() if secrets} == {
        "twilio": "token",
        "other": "token",
        "own": "s3cret",
    }


class Interface(BaseHTTPRequestHandler):
    taken: ClassVar[list[tuple[str, str, str | None, bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.taken.append((self.command, self.path, self.headers["Authorization"], body))
        self.send_response(201 if self.path == "/good" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def interface() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Interface)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_carriers_interface_is_asked_as_it_was_said(interface: str) -> None:
    call = RestCall("POST", "/good", {"Authorization": "Bearer k"}, b"Twiml=x")
    assert await rest(interface, call) == 201
    assert Interface.taken == [("POST", "/good", "Bearer k", b"Twiml=x")]
    assert await rest(interface, RestCall("POST", "/bad", {}, b"")) == 404
    assert await rest("http://127.0.0.1:1", call) == 502
