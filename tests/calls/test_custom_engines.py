"""Engines of the user's own in real calls: what one does wrong stays in its call, and what it does is charged."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.calls.caller import dial
from tests.calls.neighbour import Neighbour
from tests.calls.server import Server
from tests.calls.test_recording import SESSIONS, ended

CONFIG = """
[vendors.mine]
kind = "python:tests.realtime.adapters.bad_engines:Chat"
timeout_seconds = 20

[[models]]
id = "priced"
vendor = "mine"
kind = "chat"
input_cost_per_token = 0.001
output_cost_per_token = 0.002

[live]
stt = "instant"
chat = "instant"
tts = "instant"

[agents.own]
chat = "priced"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("custom"), config=CONFIG) as running:
        yield running


async def test_whatever_an_engine_does_other_calls_keep_every_packet(server: Server) -> None:
    with Neighbour(server) as neighbour:
        async with dial(server, agent="own") as caller:
            for wrong in ("raise", "raise late", "string", "exit"):
                caller.ask(wrong)
                done = (await caller.wait_for("response.done"))["response"]
                assert done["status"] == "failed", wrong
            caller.send({"type": "output_audio_buffer.clear"})
            caller.ask("hello")
            while (done := (await caller.wait_for("response.done"))["response"])["status"] != "completed":
                pass
            assert done["output"][0]["content"][0]["transcript"] == "Well, hello"
            neighbour.check()
            caller.send({"type": "output_audio_buffer.clear"})
            caller.ask("block")
            await caller.wait_for("response.created")
            await asyncio.sleep(1.0)
            neighbour.check(more=50)
            session = caller.session_id
        neighbour.check()
    record = await ended(server, session)
    [chat] = [part for part in record["cost"]["engines"] if part["kind"] == "chat"]
    assert chat["engine"] == "mine/priced"
    assert chat["usd"] == pytest.approx(0.001 * chat["input_tokens"] + 0.002 * chat["output_tokens"])
    assert chat["usd"] > 0
    assert record["cost"]["estimated"], "this engine does not say what it took"
    assert record["cost"]["usd"] == chat["usd"]
    assert sum(turn["cost_usd"] for turn in record["turns"]) <= chat["usd"] + 1e-9
    assert (await server.request("GET", f"{SESSIONS}/{session}/recording"))[0] == 404
    assert "it raised ValueError at bad_engines.py" in server.log()
    assert "a secret detail" in server.log()
