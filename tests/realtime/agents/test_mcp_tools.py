"""Tools of MCP servers, held against servers made with the official SDK, over both of its transports."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from realtime.adapters.base import ToolCall
from realtime.agents import mcp_tools
from realtime.agents.call import ToolError
from realtime.agents.mcp_tools import McpServer
from realtime.agents.usercode import TookTooLong
from realtime.settings_tools import McpSettings
from tests.calls.server import free_port
from tests.media.webrtc import until
from tests.realtime.agents.calls import call

PROGRAM = str(Path(__file__).parent / "mcp_server.py")
SECRET = "a-secret-of-the-tests"
SCHEMA = {"day": "string", "people": "integer"}


@asynccontextmanager
async def connected(**settings: Any) -> AsyncIterator[McpServer]:
    server = McpServer("tables", McpSettings(**settings))
    await server.start()
    try:
        yield server
    finally:
        await server.close()


def over_stdio(notes: Path, **more: Any) -> dict[str, Any]:
    environment = {"MCP_SECRET": SecretStr(SECRET), "MCP_NOTES": SecretStr(str(notes))}
    return {"command": [sys.executable, PROGRAM, "stdio"], "environment": environment, **more}


@asynccontextmanager
async def over_http(port: int, notes: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {"MCP_SECRET": SECRET, "MCP_NOTES": str(notes)}
    process = await asyncio.create_subprocess_exec(sys.executable, PROGRAM, str(port), env=environment)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def result(server: McpServer, name: str, arguments: str = "{}") -> str:
    return (await server.tools[name].run(ToolCall("call_1", name, arguments), call())).text


async def test_tools_of_a_program_are_listed_and_run_and_never_tell_its_secrets(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with connected(**over_stdio(tmp_path / "notes", timeout_seconds=1.0)) as server:
        tool = server.tools["free_tables"].spec.tool
        assert tool.description == "Tables that are free."
        assert {name: kind["type"] for name, kind in tool.parameters["properties"].items()} == SCHEMA
        said = await result(server, "free_tables", '{"day": "friday", "people": 4}')
        assert said == "On friday there is a table for 4."
        assert (tmp_path / "notes").read_text() == "friday 4\n"
        assert await result(server, "leak") == "The secret is [secret]!"
        with pytest.raises(ToolError, match=r"no luck with \[secret\]"):
            await result(server, "broken")
        with pytest.raises(ToolError, match="people"):
            await result(server, "free_tables", '{"day": "friday", "people": "many"}')
        with pytest.raises(ToolError, match="one JSON object"):
            await result(server, "free_tables", "[1]")
        with pytest.raises(TookTooLong):
            await result(server, "slow")
        assert await result(server, "leak") == "The secret is [secret]!", "the connection is still good"
        await until(lambda: "MCP server tables: it uses [secret]" in caplog.text, "what it writes is logged", 10)
    assert SECRET not in caplog.text


async def test_only_the_tools_that_are_named_and_what_is_not_there_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(**over_stdio(tmp_path / "notes", tools=["leak", "other"])) as server:
        assert list(server.tools) == ["leak"]
    assert "MCP server tables has no tool 'other'" in caplog.text


async def test_a_server_that_comes_later_and_one_that_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mcp_tools, "FIRST_PAUSE_S", 0.1)
    monkeypatch.setattr(mcp_tools, "LONGEST_PAUSE_S", 0.2)
    port = free_port()
    headers = {"Authorization": SecretStr(f"Bearer {SECRET}")}
    async with connected(url=f"http://127.0.0.1:{port}/mcp", headers=headers) as server:
        assert server.tools == {}, "the agent answers without them"
        for _ in range(2):
            async with over_http(port, tmp_path / "notes"):
                await until(lambda: server.tools, "it is there", 30)
                tool = server.tools["leak"]
                assert (await tool.run(ToolCall("call_1", "leak", "{}"), call())).text == "The secret is [secret]!"
            with pytest.raises(ToolError, match="No result"):
                await tool.run(ToolCall("call_2", "leak", "{}"), call())
            await until(lambda: not server.tools, "it is gone", 30)
    assert SECRET not in caplog.text


async def test_a_server_that_refuses_us_costs_nothing_but_its_tools(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    async with over_http(port, tmp_path / "notes"):
        await until_listening(port)
        headers = {"Authorization": SecretStr("Bearer another-secret")}
        async with connected(url=f"http://127.0.0.1:{port}/mcp", headers=headers) as server:
            assert server.tools == {}
    assert "MCP server tables is not there" in caplog.text
    assert "another-secret" not in caplog.text
    async with connected(command=["/no/such/program"]) as server:
        assert server.tools == {}


async def until_listening(port: int) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return
