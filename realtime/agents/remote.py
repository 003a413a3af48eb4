"""The tools that the settings name: requests, and those of MCP servers, by agent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import httpx2

from realtime.agents.http_tools import HttpTool
from realtime.agents.loading import BotError
from realtime.agents.tools import AgentTool
from realtime.settings import AgentSettings

if TYPE_CHECKING:
    from realtime.agents.mcp_tools import McpServer

log = logging.getLogger("realtime.agents")


class RemoteTools:
    """Raises `BotError` when an agent has MCP servers and the SDK is not installed."""

    def __init__(self, agents: Mapping[str, AgentSettings]) -> None:
        with_requests = {name: agent.http_tools for name, agent in agents.items() if agent.http_tools}
        self._client: httpx2.AsyncClient | None = None
        self._requests: dict[str, dict[str, AgentTool]] = {}
        if with_requests:
            self._client = client = httpx2.AsyncClient(follow_redirects=False, timeout=None)
            self._requests = {
                name: {tool.name: HttpTool(tool, client) for tool in tools} for name, tools in with_requests.items()
            }
        self._servers = {name: _servers(agent) for name, agent in agents.items() if agent.mcp}

    def of(self, agent: str) -> dict[str, AgentTool]:
        """What there is now. Of two tools with one name the request counts, else the server that is named first."""
        tools: dict[str, AgentTool] = dict(self._requests.get(agent, {}))
        for server in self._servers.get(agent, ()):
            for name, tool in server.tools.items():
                tools.setdefault(name, tool)
        return tools

    async def start(self) -> None:
        await asyncio.gather(*(server.start() for servers in self._servers.values() for server in servers))

    async def close(self) -> None:
        await asyncio.gather(*(server.close() for servers in self._servers.values() for server in servers))
        if self._client is not None:
            await self._client.aclose()


def _servers(agent: AgentSettings) -> list[McpServer]:
    try:
        from realtime.agents.mcp_tools import McpServer
    except ModuleNotFoundError as error:
        raise BotError(f"{error.name} is not installed (pip install 'infrai-realtime[mcp]')") from None
    return [McpServer(name, server) for name, server in agent.mcp.items()]
