"""Every error has one wire form, an id, and a line in the log that says why."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from realtime import problems
from realtime.store.base import StoreError
from signaling.errors import CallError, Full
from signaling.sdp import OfferError
from token_service.errors import AuthError, Forbidden, InvalidRequest, RequestTooLarge, TooManyRequests, Unauthorized

PLAIN, LIVE, OPENAI = "/v1/ai/fail", "/v1/ai/realtime/fail", "/v1/realtime/fail"


class Body(BaseModel):
    count: int
    nested: dict[str, int] = {}


class OwnError(Exception):
    """One that another room has registered."""


@problems.problem_of.register
def _(error: OwnError) -> problems.Problem:
    return problems.Problem(418, "teapot", "I am a teapot.", headers={"X-Own": "yes"})


class House:
    """An application whose routes raise what they are told to."""

    def __init__(self) -> None:
        self.error: BaseException = RuntimeError("unset")
        self.app = FastAPI()
        for path in (PLAIN, LIVE, OPENAI):
            self.app.add_api_route(path, self._fail, methods=["GET"])
        self.app.add_api_route("/validated", self._validated, methods=["POST"])
        self.app.add_api_route("/fine", self._fine, methods=["GET"])
        self.app.add_api_route("/half", self._half, methods=["GET"])
        self.app.add_api_websocket_route("/socket", self._socket)
        problems.install(self.app)

    async def _fail(self) -> None:
        raise self.error

    async def _validated(self, body: Body, limit: int = 1) -> dict[str, int]:
        return {"count": body.count, "limit": limit}

    async def _fine(self) -> dict[str, str]:
        return {"id": problems.request_id()}

    async def _half(self) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            yield b"half"
            raise self.error

        return StreamingResponse(parts())

    async def _socket(self, socket: WebSocket) -> None:
        if "accept" in socket.query_params:
            await socket.accept()
        raise self.error


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
async def client(house: House) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=house.app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://server") as client:
        yield client


TABLE: list[tuple[BaseException, int, str, str, str | None, bool]] = [
    (Unauthorized(), 401, "authentication_error", "invalid_token", None, False),
    (Forbidden("No.", code="missing_scope"), 403, "permission_error", "missing_scope", None, False),
    (TooManyRequests(2.1), 429, "rate_limit_error", "rate_limit_exceeded", None, True),
    (InvalidRequest("ttl_seconds", "Too long."), 422, "invalid_request_error", "invalid_value", "ttl_seconds", False),
    (InvalidRequest("", "Bad.", code="invalid_json"), 422, "invalid_request_error", "invalid_json", None, False),
    (RequestTooLarge("", "Big."), 413, "invalid_request_error", "request_too_large", None, False),
    (AuthError(), 400, "invalid_request_error", "auth_error", None, False),
    (OfferError("no_audio", "None."), 422, "invalid_request_error", "no_audio", "sdp", False),
    (OfferError("not_sdp", "None.", 400), 400, "invalid_request_error", "not_sdp", "sdp", False),
    (Full(4.2), 503, "server_error", "full", None, True),
    (CallError(409, "call_ended", "Over."), 409, "invalid_request_error", "call_ended", None, False),
    (CallError(408, "request_timeout", "Slow."), 408, "invalid_request_error", "request_timeout", None, True),
    (StoreError("secret path"), 503, "server_error", "store_unavailable", None, True),
    (HTTPException(404), 404, "invalid_request_error", "not_found", None, False),
    (HTTPException(410, "It is gone."), 410, "invalid_request_error", "gone", None, False),
    (OwnError(), 418, "invalid_request_error", "teapot", None, False),
    (RuntimeError("secret detail"), 500, "server_error", "internal_error", None, False),
    (KeyError("secret detail"), 500, "server_error", "internal_error", None, False),
]


@pytest.mark.parametrize(("error", "status", "kind", "code", "param", "retryable"), TABLE)
async def test_an_error_has_the_form_of_a_problem(
    house: House,
    client: httpx2.AsyncClient,
    error: BaseException,
    status: int,
    kind: str,
    code: str,
    param: str | None,
    retryable: bool,
) -> None:
    house.error = error
    response = await client.get(PLAIN)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert set(body) == {"type", "title", "status", "detail", "instance", "error"}
    assert (body["status"], body["instance"], body["type"]) == (status, PLAIN, "about:blank")
    assert body["error"] == {
        "type": kind,
        "code": code,
        "message": body["detail"],
        "param": param,
        "request_id": response.headers["x-request-id"],
        "retryable": retryable,
    }
    assert "secret" not in response.text
    assert ("www-authenticate" in response.headers) == (status == 401)
    if status in (429, 503):
        assert int(response.headers["retry-after"]) >= 1


async def test_under_openais_paths_the_body_is_the_error_alone(house: House, client: httpx2.AsyncClient) -> None:
    house.error = Unauthorized()
    response = await client.get(OPENAI)
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"}
    assert response.json()["error"]["code"] == "invalid_token"
    missing = await client.get("/v1/realtime/nothing")
    assert (missing.status_code, set(missing.json())) == (404, {"error"})


async def test_what_to_do_is_in_the_headers(house: House, client: httpx2.AsyncClient) -> None:
    house.error = TooManyRequests(2.1)
    assert (await client.get(PLAIN)).headers["retry-after"] == "3"
    house.error = Full(0.0)
    assert (await client.get(PLAIN)).headers["retry-after"] == "1"
    house.error = Unauthorized()
    house.error.with_headers({"X-Kept": "yes"})
    response = await client.get(PLAIN)
    assert response.headers["x-kept"] == "yes"
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.headers["cache-control"] == "no-store"
    assert (await client.delete("/fine")).headers["allow"] == "GET"


@pytest.mark.parametrize("path", [LIVE, OPENAI])
async def test_pages_can_read_the_errors_of_call_routes(house: House, client: httpx2.AsyncClient, path: str) -> None:
    for house.error in (Unauthorized(), RuntimeError(), Full(1), HTTPException(404)):
        response = await client.get(path, headers={"origin": "https://app.example"})
        assert response.headers["access-control-allow-origin"] == "*"
        assert "X-Request-Id" in response.headers["access-control-expose-headers"]
        assert "access-control-allow-origin" not in (await client.get(path)).headers
    house.error = Forbidden(code="origin_not_allowed")
    response = await client.get(path, headers={"origin": "https://evil.example"})
    assert "access-control-allow-origin" not in response.headers
    house.error = Unauthorized()
    house.error.with_headers({"Access-Control-Allow-Origin": "https://app.example"})
    response = await client.get(path, headers={"origin": "https://app.example"})
    assert response.headers["access-control-allow-origin"] == "https://app.example"


async def test_pages_cannot_read_the_errors_of_other_routes(house: House, client: httpx2.AsyncClient) -> None:
    response = await client.get(PLAIN, headers={"origin": "https://app.example"})
    assert "access-control-allow-origin" not in response.headers


@pytest.mark.parametrize(
    ("request_", "status", "code", "param"),
    [
        ({"json": {}}, 422, "missing_field", "count"),
        ({"json": {"count": "many"}}, 422, "invalid_value", "count"),
        ({"json": {"count": 1, "nested": {"deep": "x"}}}, 422, "invalid_value", "nested.deep"),
        ({"json": {"count": 1}, "params": {"limit": "x"}}, 422, "invalid_value", "limit"),
        ({"json": []}, 422, "invalid_value", "body"),
        ({}, 422, "missing_field", "body"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "invalid_json", None),
    ],
)
async def test_a_body_that_is_not_valid_names_the_field(
    client: httpx2.AsyncClient, request_: dict[str, Any], status: int, code: str, param: str | None
) -> None:
    response = await client.post("/validated", **request_)
    assert response.status_code == status
    error = response.json()["error"]
    assert (error["code"], error["param"]) == (code, param)
    assert "many" not in response.text, "what was sent is not repeated"


async def test_every_answer_carries_its_request_id(client: httpx2.AsyncClient) -> None:
    fine = await client.get("/fine")
    assert fine.headers["x-request-id"] == fine.json()["id"]
    other = await client.get("/fine")
    assert other.headers["x-request-id"] != fine.headers["x-request-id"]
    given = await client.get("/fine", headers={"x-request-id": "trace-1:a.b_C"})
    assert given.headers["x-request-id"] == given.json()["id"] == "trace-1:a.b_C"
    assert problems.request_id() == "-"


@pytest.mark.parametrize("bad", ["", "a b", "x" * 129, 'a"b', "<script>", "é".encode()])
async def test_a_request_id_that_is_not_sane_is_replaced(client: httpx2.AsyncClient, bad: str | bytes) -> None:
    response = await client.get("/fine", headers=[("x-request-id", bad)])
    assert response.headers["x-request-id"].startswith("req_")


async def test_the_log_says_why_at_the_right_level(
    house: House, client: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "realtime.problems")
    for error, level in (
        (Unauthorized(reason="unknown kid"), logging.INFO),
        (Full(1), logging.WARNING),
        (StoreError("disk full"), logging.WARNING),
        (RuntimeError("the cause"), logging.ERROR),
    ):
        caplog.clear()
        house.error = error
        response = await client.get(PLAIN, params={"key": "sekrit"}, headers={"authorization": "Bearer sekrit"})
        (record,) = [record for record in caplog.records if record.name == "realtime.problems"]
        assert record.levelno == level
        assert response.headers["x-request-id"] in record.getMessage()
        assert "sekrit" not in caplog.text
        assert (record.exc_info is not None) == (level == logging.ERROR)
    assert "the cause" in caplog.text
    caplog.clear()
    house.error = Unauthorized(reason="unknown kid")
    await client.get(PLAIN)
    assert "unknown kid" in caplog.text
    caplog.clear()
    await client.get("/v1/line%0Abreak%1B[31m")
    assert "\nbreak" not in caplog.records[0].getMessage()
    assert "\x1b" not in caplog.text


async def test_a_caller_that_went_away_is_no_error(
    house: House, client: httpx2.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    house.error = ClientDisconnect()
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": PLAIN, "headers": [], "query_string": b"", "root_path": ""}
    await house.app(scope, receive, send)
    assert sent == []
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_half_an_answer_is_cut_and_not_taken_for_whole(house: House, client: httpx2.AsyncClient) -> None:
    house.error = RuntimeError("the cause")
    with pytest.raises(RuntimeError, match="the cause"):
        await client.get("/half")


async def converse(house: House, query: str) -> list[Message]:
    """What a WebSocket client is sent."""
    incoming: list[Message] = [{"type": "websocket.connect"}]
    sent: list[Message] = []

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {
        "type": "websocket",
        "path": "/socket",
        "root_path": "",
        "query_string": query.encode(),
        "headers": [],
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
    }
    await house.app(scope, receive, send)
    return sent


async def test_a_socket_is_refused_before_the_upgrade_with_the_same_problem(house: House) -> None:
    house.error = Unauthorized()
    start, body = await converse(house, "")
    assert (start["type"], start["status"]) == ("websocket.http.response.start", 401)
    headers = dict(start["headers"])
    assert headers[b"www-authenticate"] == b"Bearer"
    error = json.loads(body["body"])["error"]
    assert (error["code"], error["request_id"]) == ("invalid_token", headers[b"x-request-id"].decode())


async def test_a_socket_that_fails_after_the_upgrade_is_closed(house: House) -> None:
    house.error = RuntimeError("secret detail")
    accept, close = await converse(house, "accept")
    assert accept["type"] == "websocket.accept"
    assert b"x-request-id" in dict(accept["headers"])
    assert (close["type"], close["code"], close["reason"]) == ("websocket.close", 1011, "internal_error")
