"""An agent without Python: tools of its settings, requests and an MCP server, in a call on a running server."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import AsyncIterator, Iterator
from urllib.parse import quote, quote_plus

import pytest

from tests.calls.bot import Bot, spoken
from tests.calls.caller import Caller, dial
from tests.calls.server import free_port
from tests.media.webrtc import until
from tests.realtime.agents import mcp_server
from tests.realtime.agents.test_http_tools import Api

SECRET, PORT, HOOKS = "a-secret/of the tests", free_port(), free_port()
CONFIG = f"""
[webhooks]
url = "http://127.0.0.1:{HOOKS}"
secret = "env:HOOKS_SECRET"

[agents.tables]
instructions = "You book tables for {{{{who}}}}."
recording = true
variables = {{ who = "Ada" }}

[[agents.tables.http_tools]]
name = "cancel_booking"
description = "Cancels a booking."
parameters = {{ type = "object", properties = {{ number = {{ type = "integer" }} }}, required = ["number"] }}
url = "http://127.0.0.1:{PORT}/bookings/{{number}}"
method = "DELETE"
headers = {{ Authorization = "env:TABLES_KEY" }}
fixed = {{ who = "{{{{who}}}}" }}

[agents.tables.mcp.kitchen]
command = {json.dumps([sys.executable, str(mcp_server.__file__), "stdio"])}
environment = {{ MCP_SECRET = "env:TABLES_KEY", MCP_NOTES = "env:MCP_NOTES" }}

[agents.teller]
instructions = "You take payments."
recording = true
call_tools = ["hang_up", "pause_recording", "resume_recording"]
transfer_to = {{ sales = "+15550009999" }}
"""
HOOKS_SECRET = "whsec_" + base64.b64encode(b"a key of the webhooks' own..").decode()
SESSIONS = "/v1/ai/realtime/sessions"
WRITE = {"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"]}}
"""What is only read need not be spoken to its end."""


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    folder = tmp_path_factory.mktemp("settings")
    environ = {"TABLES_KEY": SECRET, "MCP_NOTES": str(folder / "notes"), "HOOKS_SECRET": HOOKS_SECRET}
    with Bot(folder, "--log-level", "debug", config=CONFIG, environ=environ) as running:
        yield running


@pytest.fixture
async def bookings() -> AsyncIterator[Api]:
    served = Api()
    async with await asyncio.start_server(served.serve, "127.0.0.1", PORT):
        yield served


@pytest.fixture
async def webhooks() -> AsyncIterator[Api]:
    served = Api()
    async with await asyncio.start_server(served.serve, "127.0.0.1", HOOKS):
        yield served


async def test_tools_of_the_settings_run_once_and_never_tell_their_secrets(
    bot: Bot, bookings: Api, webhooks: Api
) -> None:
    async with dial(bot, agent="tables") as caller:
        session = caller.session_id
        assert caller.events[0]["session"]["instructions"] == "You book tables for Ada."
        bookings.answer = f"Booking 12 is cancelled by {SECRET}.".encode()
        bookings.headers = f"x-echo: {SECRET}\r\n"
        caller.ask("Cancel booking number 12")
        assert "Booking 12 is cancelled by [secret]." in await spoken(caller)
        bookings.status, bookings.answer = "403 Forbidden", f"not {SECRET}".encode()
        caller.send(WRITE)
        assert "[secret]" in await written(caller, "Cancel booking number 13")
        assert "On friday there is a table for 4." in await written(caller, "free tables on friday for 4 people")
        assert "[secret]" in await written(caller, "leak it")
        assert told(caller.events) == []
        shown = [await bot.get(f"{SESSIONS}{of}") for of in ("", f"/{session}", f"/{session}/recording")]
    assert [(path, headers["authorization"]) for path, headers, _ in bookings.requests] == [
        (f"DELETE /bookings/{number}?who=Ada", SECRET) for number in (12, 13)
    ]
    assert (bot.folder / "notes").read_text() == "friday 4\n"
    await until(lambda: any(b"call.ended" in body for _, _, body in webhooks.requests), "the end was told", 15)
    shown += [body.decode() for _, _, body in webhooks.requests]
    paths = "/v1/ai/status", f"{SESSIONS}/{session}/transcript", f"{SESSIONS}/{session}/recording"
    shown += [await bot.get(path) for path in paths]
    shown += [(await bot.request("GET", path))[2].decode() for path in ("/metrics", "/openapi.json")]
    assert told(shown) == []
    log = bot.log()
    assert told(log) == []


async def test_a_model_pauses_the_recording_without_any_python(bot: Bot) -> None:
    async with dial(bot, agent="teller") as caller:
        path = f"{SESSIONS}/{caller.session_id}/recording"
        caller.send(WRITE)
        assert "is not recorded" in await written(caller, "Pause recording")
        assert (await bot.get(path))["status"] == "paused"
        assert "Recorded again." in await written(caller, "Resume recording")
        assert (await bot.get(path))["status"] == "recording"
        assert "not held by a carrier" in await written(caller, "Transfer to sales")
        caller.ask("Hang up")
        await bot.until_calls(0, 10)
    assert await bot.ended("agent_hangup") == 1


def told(what: object) -> list[str]:
    """Writings of the secrets that are in it."""
    text = what if isinstance(what, str) else json.dumps(what, ensure_ascii=False)
    secrets = (
        SECRET,
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        base64.b64encode(SECRET.encode()).decode(),
        HOOKS_SECRET,
    )
    return [secret for secret in secrets if secret in text]


async def written(caller: Caller, asked: str) -> str:
    """The answer to something typed, as text."""
    caller.ask(asked)
    return str((await caller.wait_for("response.output_text.done"))["text"])
