"""An agent without Python: tools of its settings, requests and an MCP server, in a call on a running server."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.calls.bot import Bot, spoken
from tests.calls.caller import Caller, dial
from tests.calls.server import free_port
from tests.realtime.agents import mcp_server
from tests.realtime.agents.test_http_tools import Api

SECRET, PORT = "a-secret-of-the-tests", free_port()
CONFIG = f"""
[agents.tables]
instructions = "You book tables for {{{{who}}}}."
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
SESSIONS = "/v1/ai/realtime/sessions"


@pytest.fixture(scope="module")
def bot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bot]:
    folder = tmp_path_factory.mktemp("settings")
    environ = {"TABLES_KEY": SECRET, "MCP_NOTES": str(folder / "notes")}
    with Bot(folder, config=CONFIG, environ=environ) as running:
        yield running


@pytest.fixture
async def bookings() -> AsyncIterator[Api]:
    served = Api()
    async with await asyncio.start_server(served.serve, "127.0.0.1", PORT):
        yield served


async def test_tools_of_the_settings_run_once_and_never_tell_their_secrets(bot: Bot, bookings: Api) -> None:
    async with dial(bot, agent="tables") as caller:
        session = caller.session_id
        assert caller.events[0]["session"]["instructions"] == "You book tables for Ada."
        bookings.answer = f"Booking 12 is cancelled by {SECRET}.".encode()
        caller.ask("Cancel booking number 12")
        assert "Booking 12 is cancelled by [secret]." in await spoken(caller)
        bookings.status, bookings.answer = "403 Forbidden", f"not {SECRET}".encode()
        caller.ask("Cancel booking number 13")
        assert "[secret]" in await spoken(caller)
        caller.ask("free tables on friday for 4 people")
        assert "On friday there is a table for 4." in await spoken(caller)
        caller.ask("leak it")
        assert "[secret]" in await spoken(caller)
        assert SECRET not in json.dumps(caller.events)
    assert [(path, headers["authorization"]) for path, headers, _ in bookings.requests] == [
        (f"DELETE /bookings/{number}?who=Ada", SECRET) for number in (12, 13)
    ]
    assert (bot.folder / "notes").read_text() == "friday 4\n"
    assert SECRET not in bot.log()
    status = json.dumps(await bot.get("/v1/ai/status"))
    assert SECRET not in status
    assert SECRET not in json.dumps(await bot.get(f"{SESSIONS}/{session}/transcript"))


async def test_a_model_pauses_the_recording_without_any_python(bot: Bot) -> None:
    async with dial(bot, agent="teller") as caller:
        path = f"{SESSIONS}/{caller.session_id}/recording"
        caller.send({"type": "session.update", "session": {"type": "realtime", "output_modalities": ["text"]}})
        assert "is not recorded" in await written(caller, "Pause recording")
        assert (await bot.get(path))["status"] == "paused"
        assert "Recorded again." in await written(caller, "Resume recording")
        assert (await bot.get(path))["status"] == "recording"
        assert "not held by a carrier" in await written(caller, "Transfer to sales")
        caller.ask("Hang up")
        await bot.until_calls(0, 10)
    assert await bot.ended("agent_hangup") == 1


async def written(caller: Caller, asked: str) -> str:
    """The answer to something typed, as text."""
    caller.ask(asked)
    return str((await caller.wait_for("response.output_text.done"))["text"])
