"""Tools of MCP servers that the settings name, through the official SDK (extra `mcp`).

Each server has one task that connects, lists the tools, and keeps the connection until the end:

    CONNECTING --tools listed--> UP --connection lost--> WAITING --pause--> CONNECTING

While it is not up, calls that begin do without its tools, and the model is told so in calls under way. A
request that was sent is never sent again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TextIO

import httpx2
from mcp import Client, MCPError, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CONNECTION_CLOSED, CallToolResult, TextContent
from mcp.types import Tool as McpToolInfo

from realtime.adapters.base import Tool, ToolCall
from realtime.agents.call import Call, ToolError
from realtime.agents.http_tools import object_of, server_tool
from realtime.agents.secrets import Redaction
from realtime.agents.tools import ToolResult, bounded
from realtime.agents.usercode import TookTooLong
from realtime.settings_tools import McpSettings

log = logging.getLogger("realtime.agents")

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
CONNECT_S = 15.0
LOOK_S = 2.0
"""Seconds without an answer after which that is looked at, too."""
MAX_TOOLS = 128
MAX_LINE = 16 << 10
PING_S = 20.0
"""Seconds between looks at whether the server is still there."""


LOST = "No result: the connection to the server of this tool was lost. Whether it did anything is not known."


class McpServer:
    """One server. `tools` are those it has now, `offered` also those that the settings leave out."""

    def __init__(self, name: str, settings: McpSettings) -> None:
        self.name = name
        self.tools: Mapping[str, McpTool] = {}
        self.offered: Sequence[str] = ()
        self.trouble: str | None = None
        """Why it is not there."""
        self._settings = settings
        secrets = {**settings.headers, **settings.environment}
        self._headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
        self._environment = {name: value.get_secret_value() for name, value in settings.environment.items()}
        self.redact = Redaction(value.get_secret_value() for value in secrets.values())
        self._client: Client | None = None
        self._gone: asyncio.Future[None] | None = None
        """Settled when the connection that there is, or was, has gone."""
        self._lost = asyncio.Event()
        self._tried = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when the first attempt to connect has come to an end."""
        self._task = asyncio.get_running_loop().create_task(self._serve(), name=f"mcp:{self.name}")
        await self._tried.wait()

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _serve(self) -> None:
        pause = FIRST_PAUSE_S
        while True:
            try:
                async with self._connected() as client:
                    pause = FIRST_PAUSE_S
                    await self._watch(client)
            except Exception as error:
                # The SDK fails in groups of errors, and with whatever its transports raise.
                self.trouble = self.redact(_reason(error))
                log.error("MCP server %s is not there: %s", self.name, self.trouble)
            finally:
                self._client, self.tools = None, {}
                if self._gone is not None and not self._gone.done():
                    self._gone.set_result(None)
                self._tried.set()
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        async with AsyncExitStack() as stack:
            async with asyncio.timeout(CONNECT_S):
                client = await stack.enter_async_context(Client(await self._transport(stack), cache=None))
                found = await self._list(client)
            self._client, self._gone = client, asyncio.get_running_loop().create_future()
            self._lost.clear()
            self.trouble = None
            self.tools = {tool.name: McpTool(self, self._settings, tool) for tool in found}
            log.info("MCP server %s is there, with: %s", self.name, ", ".join(self.tools) or "no tools")
            self._tried.set()
            yield client

    async def _transport(self, stack: AsyncExitStack) -> Any:
        if self._settings.command is not None:
            program, *arguments = self._settings.command
            parameters = StdioServerParameters(command=program, args=arguments, env=self._environment)
            return stdio_client(parameters, errlog=await self._said(stack))
        assert self._settings.url is not None
        timeout = httpx2.Timeout(CONNECT_S, read=None)
        http = await stack.enter_async_context(httpx2.AsyncClient(headers=self._headers, timeout=timeout))
        return streamable_http_client(self._settings.url, http_client=http)

    async def _said(self, stack: AsyncExitStack) -> TextIO:
        """Where a program may write what goes wrong: each line is logged, without the secrets."""
        reading, writing = os.pipe()
        lines = asyncio.StreamReader(limit=MAX_LINE)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), os.fdopen(reading, "rb", 0)
        )
        stack.callback(transport.close)
        reader = loop.create_task(self._log(lines))
        stack.callback(reader.cancel)
        return stack.enter_context(os.fdopen(writing, "w"))

    async def _log(self, lines: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await lines.readline()
            except ValueError:
                continue  # longer than any line that says something
            if not line:
                return
            log.info("MCP server %s: %s", self.name, self.redact(line.decode(errors="replace").rstrip()))

    async def _list(self, client: Client) -> list[McpToolInfo]:
        found: list[McpToolInfo] = []
        cursor: str | None = None
        while len(found) < MAX_TOOLS:
            page = await client.list_tools(cursor=cursor)
            found += page.tools
            cursor = page.next_cursor
            if cursor is None:
                break
        self.offered = [tool.name for tool in found]
        wanted = self._settings.tools
        for name in set(wanted or ()) - {tool.name for tool in found}:
            log.warning("MCP server %s has no tool %r", self.name, name)
        return [tool for tool in found[:MAX_TOOLS] if wanted is None or tool.name in wanted]

    async def _watch(self, client: Client) -> None:
        """Until the server is gone. Raises what it fails with."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PING_S):
                    await self._lost.wait()
                    self._lost.clear()
            async with asyncio.timeout(CONNECT_S):
                await self._list(client)

    async def call(self, name: str, arguments: dict[str, Any]) -> CallToolResult:
        """Raises `ToolError` when the server is not there, or answers with an error."""
        if self._client is None or self._gone is None:
            raise ToolError("No result: the server of this tool is not there at the moment.")
        # The SDK may leave a request waiting whose server has gone, so that the server is looked at meanwhile.
        asked = asyncio.ensure_future(self._client.call_tool(name, arguments))
        try:
            either: list[asyncio.Future[Any]] = [asked, self._gone]
            done, _ = await asyncio.wait(either, timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
            if not done:
                self._lost.set()
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise ConnectionError("the connection was closed")
            return asked.result()
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                raise ToolError(LOST) from None
            raise ToolError(self.redact(f"It was refused: {error}")[:2000]) from None
        except TimeoutError:
            raise
        except Exception as error:
            self._lost.set()
            log.error("MCP server %s failed in %s: %s", self.name, name, self.redact(_reason(error)))
            raise ToolError(LOST) from None
        finally:
            asked.cancel()


class McpTool:
    """An `AgentTool`."""

    def __init__(self, server: McpServer, settings: McpSettings, info: McpToolInfo) -> None:
        self.timeout = settings.timeout_seconds
        self.spec = server_tool(Tool(info.name, info.description or "", info.input_schema), settings)
        self._server = server

    async def run(self, asked: ToolCall, call: Call) -> ToolResult:
        given = object_of(asked.arguments)
        try:
            async with asyncio.timeout(self.timeout) as limit:
                result = await self._server.call(self.spec.tool.name, given)
        except TimeoutError:
            if not limit.expired():
                raise
            raise TookTooLong(self.timeout, f"the MCP server {self._server.name}") from None
        text = bounded(self._server.redact(_text(result)))
        if result.is_error:
            raise ToolError(text or "It failed. There is no result.")
        return ToolResult(text or "Done.")


def _text(result: CallToolResult) -> str:
    """What a model can read of it."""
    parts = [part.text if isinstance(part, TextContent) else f"[{part.type}]" for part in result.content]
    if not parts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(parts)


def _reason(error: BaseException) -> str:
    """The first of a group of errors, in a line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}".splitlines()[0][:300]
