"""The example agents with a chat model that nobody here wrote: aimock, over WebRTC, the WebSocket and the telephone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import aioice.ice
import pytest
from streamdouble.scenario import WaitFor

from realtime.client import connect
from tests.calls import phone
from tests.calls.bot import SPOKEN, spoken
from tests.calls.caller import dial
from tests.calls.conftest import HOW_ARE_YOU
from tests.calls.server import API_KEY, ROOT, Server
from tests.interop.test_aimock import mocking

FIXTURES = [
    {
        "match": {"toolName": "free_tables", "hasToolResult": False},
        "response": {"toolCalls": [{"name": "free_tables", "arguments": '{"day": "friday", "people": 2}'}]},
    },
    {"match": {"endpoint": "chat"}, "response": {"content": "There is one at seven."}},
]


@pytest.fixture(scope="module")
def bot(environment: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("agents")
    fixtures = folder / "fixtures.json"
    fixtures.write_text(json.dumps({"fixtures": FIXTURES}))
    with mocking(environment("vendors"), fixtures) as url:
        config = f"""
[vendors.aimock]
base_url = "{url}/v1"
key = "env:AIMOCK_KEY"

[live]
stt = "instant"
chat = "aimock/gpt-5"
{phone.CONFIG}"""
        environ = {**phone.ENVIRON, "AIMOCK_KEY": "k"}
        example = str(ROOT / "examples" / "agents" / "tables.py")
        with Server(folder / "server", example, config=config, environ=environ) as running:
            yield running


@pytest.fixture(autouse=True)
def on_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


def tools_run(server: Server) -> int:
    return server.log().count("tool free_tables call=")


async def test_over_webrtc(bot: Server) -> None:
    before = tools_run(bot)
    async with dial(bot) as caller:
        assert await spoken(caller) == "Hello, how many are you?"
        caller.ask("Two, on Friday.")
        assert await spoken(caller) == "There is one at seven."
        outputs = [event["item"].get("output") for event in caller.of("conversation.item.done")]
        assert '["19:00","20:30"]' in outputs
    assert tools_run(bot) - before == 1


async def test_over_the_websocket(bot: Server) -> None:
    before = tools_run(bot)
    async with connect(bot.url, api_key=API_KEY, transport="websocket") as call, asyncio.timeout(20):
        await call.wait_for(SPOKEN)
        await call.say("Two, on Friday.")
        assert (await call.wait_for(SPOKEN))["transcript"] == "There is one at seven."
    assert tools_run(bot) - before == 1


async def test_on_the_telephone(bot: Server) -> None:
    before = tools_run(bot)
    steps = WaitFor("audio"), WaitFor("quiet"), phone.saying(HOW_ARE_YOU), WaitFor("audio"), WaitFor("quiet")
    report = await phone.ring(bot, *steps)
    assert report.result.violations == []
    assert tools_run(bot) - before == 1
