"""Tools of the settings that are requests to a server of the developer's.

The request is made once: no redirect is followed, nothing is tried again, and `Idempotency-Key` is the call id
of the model, so that the other side can tell. What comes back is text for the model, without the secrets.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx2

from realtime.adapters.base import Tool, ToolCall
from realtime.agents.call import Call, ToolError
from realtime.agents.secrets import Redaction
from realtime.agents.tools import ToolResult, bounded
from realtime.agents.usercode import TookTooLong
from realtime.agents.variables import fill
from realtime.live.agent import ServerTool
from realtime.settings_tools import HttpToolSettings, ToolBehaviour

MAX_BODY = 64 << 10
"""Bytes of an answer that are read."""

MAX_ARGUMENTS = 64 << 10

_PLACE = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_IN_QUERY = ("GET", "DELETE")


def server_tool(tool: Tool, settings: ToolBehaviour) -> ServerTool:
    return ServerTool(tool, settings.on_cut, settings.later, settings.filler)


def object_of(arguments: str) -> dict[str, Any]:
    """What the model gives as arguments. Raises `ToolError`."""
    try:
        given = json.loads(arguments or "{}") if len(arguments) <= MAX_ARGUMENTS else None
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise ToolError("The arguments do not fit: they are one JSON object.")
    return given


class HttpTool:
    """An `AgentTool`. `client` makes the requests; it follows no redirects."""

    def __init__(self, settings: HttpToolSettings, client: httpx2.AsyncClient) -> None:
        self.timeout = settings.timeout_seconds
        self.spec = server_tool(Tool(settings.name, settings.description, settings.parameters), settings)
        self._settings = settings
        self._client = client
        self._headers = {name: secret.get_secret_value() for name, secret in settings.headers.items()}
        self._redact = Redaction(self._headers.values())

    async def run(self, asked: ToolCall, call: Call) -> ToolResult:
        given = object_of(asked.arguments)
        self._check(given)
        given |= {name: fill(text, call.variables) for name, text in self._settings.fixed.items()}
        try:
            async with asyncio.timeout(self.timeout) as limit:
                return ToolResult(await self._answer(given, asked.id))
        except TimeoutError:
            if not limit.expired():
                raise
            raise TookTooLong(self.timeout, f"{self._settings.method} {self._settings.url}") from None
        except httpx2.HTTPError as error:
            # Without the error itself: what it quotes may be anything.
            raise ToolError(f"No result: the server could not be asked ({type(error).__name__}).") from None

    def _check(self, given: Mapping[str, Any]) -> None:
        """The other side checks values; what it must never be asked is checked here."""
        schema = self._settings.parameters
        known, required = schema.get("properties"), schema.get("required")
        missing = [name for name in required if name not in given] if isinstance(required, list) else []
        unknown = [name for name in given if name not in known] if isinstance(known, dict) else []
        if missing:
            raise ToolError(f"The arguments do not fit. Missing: {', '.join(map(str, missing))}")
        if unknown:
            raise ToolError(f"The arguments do not fit. Unknown: {', '.join(unknown)[:200]}")

    async def _answer(self, given: dict[str, Any], call_id: str) -> str:
        url = _PLACE.sub(lambda place: _in_path(given.pop(place[1], None), place[1]), self._settings.url)
        headers = {**self._headers, "Idempotency-Key": call_id}
        query = {name: _plain(value) for name, value in given.items()} if self._in_query else None
        body = None if self._in_query else given
        async with self._client.stream(self._settings.method, url, params=query, json=body, headers=headers) as answer:
            text = self._redact(await _read(answer))
        if 200 <= answer.status_code < 300:
            return bounded(text) or "Done."
        raise ToolError(f"It was answered by HTTP {answer.status_code}: {text[:2000] or 'nothing more'}")

    @property
    def _in_query(self) -> bool:
        return self._settings.method in _IN_QUERY


async def _read(answer: httpx2.Response) -> str:
    body = bytearray()
    async for piece in answer.aiter_bytes():
        body += piece
        if len(body) > MAX_BODY:
            break
    return bytes(body[:MAX_BODY]).decode(answer.charset_encoding or "utf-8", errors="replace").strip()


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _in_path(value: Any, name: str) -> str:
    """One step of a path, and never more than that."""
    text = "" if value is None else _plain(value)
    if text.strip() in ("", ".", ".."):
        raise ToolError(f"The arguments do not fit. {name}: a value is needed")
    return quote(text, safe="")
