"""Reads the bodies of call requests: bounded in bytes and in time, while they arrive.

Takes hostile bodies and answers with text, a mapping, `OfferError` or `CallError`, nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from signaling.caller import Caller
from signaling.errors import CallError
from signaling.sdp import MAX_FRAGMENT_BYTES, MAX_OFFER_BYTES, OfferError

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"
MULTIPART = "multipart/form-data"
MAX_SESSION_BYTES = 64 * 1024
BODY_SECONDS = 10.0
"""A body of 64 kB takes 5 s at 100 kbit/s; slower senders hold a connection for nothing."""

_MULTIPART_OVERHEAD_BYTES = 4096  # boundaries and part headers
_MAX_PARTS = 8
MAX_PARAMETERS = 32
MAX_TEXT = 500
"""Characters of a name or a value that a gateway passes on of its caller."""


def media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class Posted:
    """`sdp`: the offer as it was sent. `session`: what came with it (OpenAI's multipart form; else {}). `caller`: who
    calls through a gateway, as it says."""

    sdp: bytes | str
    session: Mapping[str, Any]
    caller: Caller | None = None


async def read_offer(request: Request) -> Posted:
    """The body of a POST."""
    kind = media_type(request)
    if kind == SDP:
        return Posted(await _read(request, MAX_OFFER_BYTES, "The offer"), {})
    if kind != MULTIPART:
        raise CallError(
            415,
            "unsupported_media_type",
            f"Send the offer as {SDP}, or as {MULTIPART} with the parts `sdp` and `session`.",
            headers={"Accept-Post": SDP},
        )
    body = await _read(request, MAX_OFFER_BYTES + MAX_SESSION_BYTES + _MULTIPART_OVERHEAD_BYTES, "The form")
    parts = await _parts(request, body)
    if "sdp" not in parts:
        raise CallError(400, "missing_part", "The form has no part `sdp`.", param="sdp")
    return Posted(parts["sdp"], _session(parts.get("session", "")), _caller(parts.get("caller", "")))


async def read_fragment(request: Request) -> bytes:
    """The body of a trickle request."""
    if media_type(request) != FRAGMENT:
        raise CallError(
            415, "unsupported_media_type", f"Send candidates as {FRAGMENT}.", headers={"Accept-Patch": FRAGMENT}
        )
    return await _read(request, MAX_FRAGMENT_BYTES, "The fragment")


async def _read(request: Request, limit: int, what: str) -> bytes:
    too_large = OfferError("too_large", f"{what} is too large; at most {limit} bytes are taken.", 413)
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:12]) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise CallError(408, "request_timeout", f"{what} did not arrive within {BODY_SECONDS:g} s.") from None
    return bytes(body)


async def _parts(request: Request, body: bytes) -> dict[str, bytes | str]:
    """The first part of each name, whether it came as a field or as a file."""

    async def once() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await MultiPartParser(
            request.headers, once(), max_files=_MAX_PARTS, max_fields=_MAX_PARTS, max_part_size=len(body) + 1
        ).parse()
    except MultiPartException as error:
        raise CallError(400, "malformed_form", f"The form cannot be read: {error.message}") from None
    except Exception as error:
        # Any other escape of the parser is its answer to hostile bytes, and the caller's fault all the same.
        raise CallError(400, "malformed_form", "The form cannot be read.", reason=repr(error)) from None
    try:
        parts: dict[str, bytes | str] = {}
        for name, value in form.multi_items():
            if name not in parts:
                parts[name] = await value.read() if isinstance(value, UploadFile) else value
        return parts
    finally:
        await form.close()


def _session(part: bytes | str) -> Mapping[str, Any]:
    if len(part) > MAX_SESSION_BYTES:
        raise CallError(
            413, "too_large", f"The session is too large; at most {MAX_SESSION_BYTES} bytes are taken.", param="session"
        )
    return _object(part, "session")


def _caller(part: bytes | str) -> Caller | None:
    """`{"number": …, "dialled": …, "parameters": {…}}`, all of it text, none of it needed."""
    given = _object(part, "caller")
    parameters = given.get("parameters", {})
    texts = {name: value for name, value in given.items() if name != "parameters" and value is not None}
    if not texts.keys() <= {"number", "dialled"} or not _are_texts(texts) or not _are_texts(parameters):
        raise CallError(
            422,
            "invalid_value",
            f"The part `caller` holds `number`, `dialled` and `parameters`: texts of at most {MAX_TEXT} characters.",
            param="caller",
        )
    return Caller("phone", texts.get("number"), texts.get("dialled"), None, parameters) if given else None


def _are_texts(values: object) -> bool:
    return (
        isinstance(values, dict)
        and len(values) <= MAX_PARAMETERS
        and all(
            isinstance(text, str) and len(text) <= MAX_TEXT and text.isprintable()
            for item in values.items()
            for text in item
        )
    )


def _object(part: bytes | str, name: str) -> dict[str, Any]:
    if not part.strip():
        return {}
    try:
        value = orjson.loads(part)
    except orjson.JSONDecodeError:
        raise CallError(422, "invalid_json", f"The part `{name}` is not JSON.", param=name) from None
    if not isinstance(value, dict):
        raise CallError(422, "invalid_value", f"The part `{name}` is not a JSON object.", param=name)
    return value
