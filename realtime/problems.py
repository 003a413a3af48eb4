"""Errors as users see them: one wire form for everything that goes wrong over HTTP.

`install` puts one ASGI middleware around the application. It names every request (X-Request-Id in, or
made here; kept in a context variable for the logs), turns typed errors into `application/problem+json`
(RFC 9457) with an `error` member in OpenAI's shape, and says in the log why. Under /v1/realtime/ the body
is `{"error": …}` alone, as OpenAI's clients expect. An error that nobody foresaw is a 500 that says nothing
but the request id; its traceback goes to the log. Never put into an answer: tracebacks, input that was
refused, tokens.

Rooms of `realtime` with errors of their own add them: `@problem_of.register`.
"""

from __future__ import annotations

import logging
import math
import re
import secrets
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import singledispatch
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from realtime.log_limit import REFUSED
from realtime.store.base import StoreError
from signaling.errors import CallError, Full
from signaling.sdp import OfferError
from token_service.errors import (
    AuthError,
    Forbidden,
    InvalidRequest,
    RequestTooLarge,
    TooManyRequests,
    Unauthorized,
)

logger = logging.getLogger(__name__)

OPENAI_PREFIX = "/v1/realtime"
CORS_PREFIXES = ("/v1/realtime", "/v1/ai/realtime")
"""Pages of other origins may read what went wrong here. No answer depends on cookies, so `*` gives nothing away."""
EXPOSED_HEADERS = "Location, Link, Retry-After, X-Request-Id"
INTERNAL_CLOSE_CODE = 1011

_ORIGIN_REFUSED = "origin_not_allowed"  # a page that was refused as such is told nothing, not even why
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_request_id: ContextVar[str] = ContextVar("request_id", default="-")


def request_id() -> str:
    """The id of the request being served, `-` outside of one."""
    return _request_id.get()


@dataclass(frozen=True, slots=True)
class Problem:
    """One error, ready to be written down. `reason` is for the log only."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after: float | None = None
    retryable: bool | None = None
    """None: by the status."""
    reason: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


# -- what each error means ---------------------------------------------------------------------------


@singledispatch
def problem_of(error: BaseException) -> Problem:
    """The problem that an exception is; whatever has no rule is a 500 that says nothing."""
    return Problem(500, "internal_error", "Something went wrong on the server; the request id finds it in its log.")


@problem_of.register
def _(error: AuthError) -> Problem:
    status, retry_after, param = 400, None, None
    match error:
        case Unauthorized():
            status = 401
        case Forbidden():
            status = 403
        case TooManyRequests():
            status, retry_after = 429, error.retry_after
        case RequestTooLarge():
            status, param = 413, error.param or None
        case InvalidRequest():
            status, param = 422, error.param or None
    return Problem(
        status,
        error.code,
        error.message,
        param=param,
        retry_after=retry_after,
        reason=error.reason,
        headers=error.headers,
    )


@problem_of.register
def _(error: OfferError) -> Problem:
    return Problem(error.status, error.code, error.message, param="sdp")


@problem_of.register
def _(error: Full) -> Problem:
    message = "No further call is taken at the moment."
    return Problem(503, "full", message, retry_after=error.retry_after, reason=error.reason)


@problem_of.register
def _(error: CallError) -> Problem:
    return Problem(
        error.status,
        error.code,
        error.message,
        param=error.param,
        retry_after=error.retry_after,
        reason=error.reason,
        headers=error.headers,
    )


@problem_of.register
def _(error: StoreError) -> Problem:
    return Problem(503, "store_unavailable", "The server cannot reach its store.", retry_after=1.0, reason=str(error))


@problem_of.register
def _(error: HTTPException) -> Problem:
    phrase = _phrase(error.status_code)
    detail = error.detail if isinstance(error.detail, str) else ""
    message = detail if detail and detail != phrase else _MESSAGES.get(error.status_code, f"{phrase}.")
    return Problem(error.status_code, phrase.lower().replace(" ", "_"), message, headers=error.headers or {})


@problem_of.register
def _(error: RequestValidationError) -> Problem:
    first, *others = error.errors() or [{"loc": (), "msg": "The request is not valid.", "type": "value_error"}]
    if first["type"] == "json_invalid":
        return Problem(400, "invalid_json", "The body is not JSON.")
    where, *path = (str(part) for part in (first["loc"] or ("body",)))
    param = ".".join(path) or where
    more = f" ({len(others)} more)" if others else ""
    code = "missing_field" if first["type"] == "missing" else "invalid_value"
    return Problem(422, code, f"{param}: {first['msg']}{more}", param=param)


_MESSAGES = {
    404: "There is nothing at this address.",
    405: "This address does not take that method.",
    413: "The body is too large.",
}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_RETRYABLE = frozenset({408, 425, 429, 502, 503, 504})


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


# -- how it is written ---------------------------------------------------------------------------------


def render(problem: Problem, scope: Scope) -> Response:
    """The answer to the request in `scope`."""
    path = _path(scope)
    kind = _TYPES.get(problem.status, "server_error" if problem.status >= 500 else "invalid_request_error")
    retryable = problem.status in _RETRYABLE if problem.retryable is None else problem.retryable
    error: dict[str, Any] = {
        "type": kind,
        "code": problem.code,
        "message": problem.message,
        "param": problem.param,
        "request_id": request_id(),
        "retryable": retryable,
    }
    headers = {"Cache-Control": "no-store", **problem.headers}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if problem.retry_after is not None:
        headers["Retry-After"] = str(max(1, math.ceil(problem.retry_after)))
    if _under(path, CORS_PREFIXES) and "origin" in Headers(scope=scope) and problem.code != _ORIGIN_REFUSED:
        headers.setdefault("Access-Control-Allow-Origin", "*")
        headers.setdefault("Access-Control-Expose-Headers", EXPOSED_HEADERS)
    if _under(path, (OPENAI_PREFIX,)):
        return Response(orjson.dumps({"error": error}), problem.status, headers, "application/json")
    body = {
        "type": "about:blank",
        "title": _phrase(problem.status),
        "status": problem.status,
        "detail": problem.message,
        "instance": path,
        "error": error,
    }
    return Response(orjson.dumps(body), problem.status, headers, "application/problem+json")


def _path(scope: Scope) -> str:
    return str(scope["path"]).removeprefix(scope.get("root_path", "")) or "/"


def _under(path: str, prefixes: tuple[str, ...]) -> bool:
    return any(path == prefix or path.startswith(f"{prefix}/") for prefix in prefixes)


def _log(problem: Problem, scope: Scope, error: BaseException) -> None:
    """Why, in one line; the path escaped, since a caller chose it, and without its query, which may hold a key."""
    path = _path(scope).encode("unicode_escape").decode("ascii")
    why = problem.reason or problem.message
    line = "%s %s: %d %s (%s) request_id=%s"
    arguments = (scope.get("method", "WS"), path, problem.status, problem.code, why, request_id())
    if problem.status == 500:
        logger.error(line, *arguments, exc_info=error)
        return
    # Vendors' failures are not the caller's doing.
    refused = problem.status < 500 or problem.status == 503
    extra = _of(f"requests refused with {problem.status}", scope) if refused else None
    logger.log(logging.WARNING if problem.status > 500 else logging.INFO, line, *arguments, extra=extra)


def _of(what: str, scope: Scope) -> dict[str, tuple[str, str]]:
    """That a line is one of those that strangers can cause."""
    client = scope.get("client")
    return {REFUSED: (what, client[0] if client else "")}


async def _answer_known(connection: HTTPConnection, error: Exception) -> Response:
    problem = problem_of(error)
    _log(problem, connection.scope, error)
    return render(problem, connection.scope)


class Problems:
    """The middleware: names the request, and catches what comes out of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        name = given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
        token = _request_id.set(name)
        started = False

        async def send_named(message: Message) -> None:
            nonlocal started
            if message["type"] in ("http.response.start", "websocket.http.response.start", "websocket.accept"):
                started = True
                message.setdefault("headers", [])
                MutableHeaders(scope=message)["X-Request-Id"] = name
            await send(message)

        try:
            await self._app(scope, receive, send_named)
        except ClientDisconnect:
            arguments = (scope.get("method", "WS"), _path(scope), name)
            logger.info("%s %s: the client went away request_id=%s", *arguments, extra=_of("clients gone", scope))
        except Exception as error:
            await self._caught(error, scope, receive, send_named, started)
        finally:
            _request_id.reset(token)

    async def _caught(self, error: Exception, scope: Scope, receive: Receive, send: Send, started: bool) -> None:
        problem = problem_of(error)
        _log(problem, scope, error)
        if not started:
            await render(problem, scope)(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": INTERNAL_CLOSE_CODE, "reason": problem.code})
        else:
            raise error  # half an answer is out; the server must cut the connection so that it is not taken for whole


def install(app: FastAPI) -> None:
    """Make `app` answer every error as described above. Call it after every other middleware was added."""
    app.add_exception_handler(HTTPException, _answer_known)
    app.add_exception_handler(RequestValidationError, _answer_known)
    app.add_middleware(Problems)
