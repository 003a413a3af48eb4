"""A server killed with SIGKILL: what it finished is there after the restart, what it had begun is done again."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import orjson

from tests.calls.server import Server
from tests.vendors.openai_stub import CHAT as VENDOR_CHAT
from tests.vendors.openai_stub import OpenAIStub, Plan

CHAT = "/v1/ai/chat"
DONE = {"messages": "Hello", "idempotency_key": "done"}
BEGUN = {"messages": "Hello", "idempotency_key": "begun"}
JOB = {"messages": "Hello", "batch_mode": True, "timeout_seconds": 0.5}


async def ask(server: Server, body: dict[str, Any]) -> tuple[int, dict[str, str], dict[str, Any]]:
    status, headers, answer = await server.request("POST", CHAT, orjson.dumps(body), content_type="application/json")
    return status, headers, orjson.loads(answer)


async def test_nothing_is_lost_and_no_key_stays_locked(tmp_path: Path) -> None:
    with OpenAIStub().serve() as stub:
        config = f"""
[vendors.stub]
base_url = "{stub.base_url}"
[[models]]
id = "m"
vendor = "stub"
kind = "chat"
[live]
stt = ["instant"]
tts = ["instant"]
"""
        with Server(tmp_path, config=config) as server:
            status, _, first = await ask(server, DONE)
            assert status == 200
            stub.plan(VENDOR_CHAT, Plan(hang=True), times=2)
            status, _, job = await ask(server, JOB)
            assert status == 202
            begun = asyncio.create_task(ask(server, BEGUN))
            await stub.until(lambda: len(stub.requests(VENDOR_CHAT)) == 3)
            os.kill(server.pid, signal.SIGKILL)
            await asyncio.wait([begun])
            assert begun.exception() is not None

        stub.tokens = ["Another answer."]
        with Server(tmp_path, config=config) as server:
            status, headers, again = await ask(server, DONE)
            assert (status, headers["idempotent-replayed"], again["content"]) == (200, "true", first["content"])

            until = time.monotonic() + 20
            while (found := await ask(server, BEGUN))[0] == 409:
                assert "retry-after" in found[1]
                assert time.monotonic() < until, "the key stayed locked"
                await asyncio.sleep(0.1)
            assert (found[0], found[2]["content"]) == (200, "Another answer.")

            path = job["poll_url"].partition("/v1/")[2]
            while (shown := await server.get(f"/v1/{path}"))["status"] != "completed":
                assert time.monotonic() < until, shown
                await asyncio.sleep(0.05)
            assert shown["result"]["content"] == "Another answer."
    assert len(stub.requests(VENDOR_CHAT)) == 5
