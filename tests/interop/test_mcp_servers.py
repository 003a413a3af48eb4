"""Tools of the protocol's own example server, which uses all of it, over both of its transports."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from realtime.adapters.base import ToolCall
from realtime.agents.call import ToolError
from realtime.agents.mcp_tools import McpServer
from realtime.agents.usercode import TookTooLong
from realtime.settings_tools import McpSettings
from tests.calls.server import free_port
from tests.realtime.agents.calls import call
from tests.realtime.agents.test_mcp_tools import until_listening


@pytest.fixture(scope="session")
def program(environment: Callable[[str], Path]) -> str:
    return str(environment("mcp") / "node_modules" / ".bin" / "mcp-server-everything")


@asynccontextmanager
async def everything(program: str, transport: str, **settings: Any) -> AsyncIterator[McpServer]:
    process = None
    if transport == "stdio":
        settings["command"] = [program, "stdio"]
    else:
        port = free_port()
        environment = {**os.environ, "PORT": str(port)}
        process = await asyncio.create_subprocess_exec(program, "streamableHttp", env=environment)
        await until_listening(port)
        settings["url"] = f"http://127.0.0.1:{port}/mcp"
    server = McpServer("everything", McpSettings(**settings))
    await server.start()
    try:
        yield server
    finally:
        await server.close()
        if process is not None:
            process.terminate()
            await process.wait()


async def run(server: McpServer, name: str, arguments: str) -> str:
    return (await server.tools[name].run(ToolCall("call_1", name, arguments), call())).text


@pytest.mark.parametrize("transport", ["stdio", "streamableHttp"])
async def test_the_example_server_of_the_protocol(program: str, transport: str) -> None:
    async with everything(program, transport) as server:
        assert len(server.tools) >= 8, list(server.tools)
        assert all(tool.spec.tool.parameters["type"] == "object" for tool in server.tools.values())
        assert await run(server, "echo", '{"message": "hello"}') == "Echo: hello"
        assert "5" in await run(server, "get-sum", '{"a": 2, "b": 3}')
        assert "[image]" in await run(server, "get-tiny-image", "{}")
        with pytest.raises(ToolError):
            await run(server, "get-sum", '{"a": "two", "b": 3}')


async def test_a_long_operation_is_given_up_and_the_server_answers_on(program: str) -> None:
    async with everything(program, "stdio", timeout_seconds=1.0) as server:
        with pytest.raises(TookTooLong):
            await run(server, "trigger-long-running-operation", '{"duration": 30, "steps": 3}')
        assert await run(server, "echo", '{"message": "still here"}') == "Echo: still here"
