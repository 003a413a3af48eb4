"""An MCP server made with the official SDK. Argument: `stdio`, or a port of loopback for streamable HTTP.

Over HTTP it wants `Authorization: Bearer` with the secret of the environment.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import uvicorn
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

server = MCPServer("tables")
SECRET = os.environ.get("MCP_SECRET", "")


@server.tool()
def free_tables(day: str, people: int) -> str:
    """Tables that are free."""
    with Path(os.environ["MCP_NOTES"]).open("a") as file:
        print(day, people, file=file, flush=True)
    return f"On {day} there is a table for {people}."


@server.tool()
async def leak() -> str:
    """Tells the secret."""
    return f"The secret is {SECRET}!"


@server.tool()
async def broken() -> str:
    """Fails."""
    print(f"it uses {SECRET}", file=sys.stderr)
    raise ToolError(f"no luck with {SECRET}")


@server.tool()
async def slow() -> str:
    """Takes for ever."""
    await asyncio.sleep(60)
    return "never"


async def guard(request: Request, call_next: object) -> Response:
    if request.headers.get("authorization") != f"Bearer {SECRET}":
        return PlainTextResponse("who are you?", 401)
    return await call_next(request)  # type: ignore[operator,no-any-return]


if __name__ == "__main__":
    if sys.argv[1] == "stdio":
        server.run("stdio")
    else:
        app = server.streamable_http_app()
        app.add_middleware(BaseHTTPMiddleware, dispatch=guard)
        uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
