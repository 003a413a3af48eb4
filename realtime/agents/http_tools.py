"""Tools of the settings that are requests to a server of the developer's.

The request is made once: no redirect is followed, nothing is tried again, and `Idempotency-Key` is the call id
of the model, so that the other side can tell. What comes back is text for the model, without the secrets.
"""

from __future__ import annotations

import asyncio
import codecs
import json
import logging
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import httpx2
import orjson

from realtime.adapters.base import Tool, ToolCall
from realtime.agents.call import Call, ToolError
from realtime.agents.secrets import Redaction
from realtime.agents.tools import ToolResult, bounded
from realtime.agents.usercode import TookTooLong
from realtime.agents.variables import fill
from realtime.json_schemas import Checker, Complaint
from realtime.live.agent import ServerTool
from realtime.settings_tools import PLACE, HttpToolSettings, ToolBehaviour

log = logging.getLogger("realtime.agents")

MAX_BODY = 64 << 10
"""Bytes of an answer that are read."""

MAX_ARGUMENTS = 64 << 10
FEW_ARGUMENTS = 2000
"""Characters of arguments of which every mistake is told; of longer ones the first, which is found at once."""

_IN_QUERY = ("GET", "DELETE")
_CHARSETS = {"utf-8", "ascii", "iso8859-1", "iso8859-15", "cp1252", "utf-16"}
"""By Python's names: decoders that take any bytes in a moment."""


def server_tool(tool: Tool, settings: ToolBehaviour) -> ServerTool:
    return ServerTool(tool, settings.on_cut, settings.later, settings.filler)


def object_of(arguments: str) -> dict[str, Any]:
    """What the model gives as arguments. Raises `ToolError`."""
    try:
        given = orjson.loads(arguments or "{}") if len(arguments) <= MAX_ARGUMENTS else None
    except orjson.JSONDecodeError:
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
        schema = settings.parameters
        # What is not named is refused, unless the schema says itself what else there may be.
        self._checker = Checker(
            {"additionalProperties": False, **schema} if "properties" in schema else schema, formats=True
        )

    async def run(self, asked: ToolCall, call: Call) -> ToolResult:
        given = object_of(asked.arguments)
        self._check(given, every=len(asked.arguments) <= FEW_ARGUMENTS)
        given |= {name: fill(text, call.variables) for name, text in self._settings.fixed.items()}
        try:
            async with asyncio.timeout(self.timeout) as limit:
                return ToolResult(await self._answer(given, asked.id))
        except TimeoutError:
            if not limit.expired():
                raise
            raise TookTooLong(self.timeout, f"{self._settings.method} {self._settings.url}") from None
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            # The model reads its kind alone: what it quotes may be anything.
            kind = type(error).__name__
            log.warning(
                "session=%s tool %s could not be asked: %s: %s", call.id, asked.name, kind, self._redact(str(error))
            )
            raise ToolError(f"No result: the server could not be asked ({kind}).") from None

    def _check(self, given: Mapping[str, Any], *, every: bool) -> None:
        """Raises `ToolError` that names each argument that does not fit, and says how it does not."""
        first = None if every else self._checker.complaint(given)
        found = self._checker.complaints(given) if every else [first] if first is not None else []
        if found:
            raise ToolError("The arguments do not fit. " + "; ".join(map(_told, found)))

    async def _answer(self, given: dict[str, Any], call_id: str) -> str:
        url = PLACE.sub(lambda place: _in_path(given.pop(place[1], None), place[1]), self._settings.url)
        headers = {"Accept-Encoding": "identity", **self._headers, "Idempotency-Key": call_id}
        query = {name: _plain(value) for name, value in given.items()} if self._in_query else None
        body = None if self._in_query else given
        async with self._client.stream(self._settings.method, url, params=query, json=body, headers=headers) as answer:
            text = await _read(answer, self._redact)
        if 200 <= answer.status_code < 300:
            return bounded(text) or "Done."
        raise ToolError(f"It was answered by HTTP {answer.status_code}: {text[:2000] or 'nothing more'}")

    @property
    def _in_query(self) -> bool:
        return self._settings.method in _IN_QUERY


def _told(complaint: Complaint) -> str:
    return f"{complaint.where}: {complaint.what}" if complaint.where else complaint.what


async def _read(answer: httpx2.Response, redact: Redaction) -> str:
    """The beginning of the body as text, without the secrets. Raises `ToolError`."""
    packed = answer.headers.get("content-encoding", "identity").strip().lower()
    if packed not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise ToolError("No result: the answer is packed in a way that was not asked for.")
    # By hand, because the library's own unpacks a small piece to whatever size it has.
    unpack = zlib.decompressobj(47) if packed not in ("identity", "") else None
    body = bytearray()
    try:
        async for piece in answer.aiter_raw():
            body += unpack.decompress(piece, MAX_BODY + 1 - len(body)) if unpack is not None else piece
            if len(body) > MAX_BODY:
                break
    except zlib.error:
        raise ToolError("No result: the answer cannot be unpacked.") from None
    text = redact(bytes(body[:MAX_BODY]).decode(_charset(answer), errors="replace"))
    # Where the body was cut, its end may be the beginning of a secret.
    return (text if len(body) <= MAX_BODY else text[: -redact.longest or None]).strip()


def _charset(answer: httpx2.Response) -> str:
    try:
        name = codecs.lookup(answer.charset_encoding or "utf-8").name
    except LookupError:
        return "utf-8"
    return name if name in _CHARSETS else "utf-8"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _in_path(value: Any, name: str) -> str:
    """One step of a path, and never more than that."""
    text = "" if value is None else _plain(value)
    if text.strip() in ("", ".", ".."):
        raise ToolError(f"The arguments do not fit. {name}: a value is needed")
    return quote(text, safe="")
