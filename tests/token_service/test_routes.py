"""The token route as clients meet it: keys, pages, bodies, limits, CORS, and what comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from token_service.auth import Authenticator
from token_service.errors import AuthError, Forbidden, InvalidRequest, RequestTooLarge, TooManyRequests, Unauthorized
from token_service.ice import IceConfig, IceServer
from token_service.minting import EffectiveSession, Minter, MintLimits, load_session
from token_service.routes import MAX_BODY_BYTES, token_routes

PATH = "/v1/ai/realtime/token"
PAGE = "https://app.example"


class Policy:
    """Two agents, two models; sessions may hold anything but a `locked` field."""

    def effective(
        self, *, agent: str | None, model: str | None, voice: str | None, session: Mapping[str, Any] | None
    ) -> EffectiveSession:
        if agent not in (None, "default", "shop"):
            raise InvalidRequest("agent", f"There is no agent {agent!r}; known: default, shop.")
        if model not in (None, "small", "large"):
            raise InvalidRequest("model", f"There is no model {model!r}; known: small, large.")
        return EffectiveSession(agent or "default", model or "small", voice, dict(session or {}))


async def render(_: Request, error: AuthError) -> JSONResponse:
    status = {Unauthorized: 401, Forbidden: 403, TooManyRequests: 429, InvalidRequest: 422, RequestTooLarge: 413}
    headers = dict(error.headers)
    if isinstance(error, TooManyRequests):
        headers["Retry-After"] = str(round(error.retry_after))
    body = {"code": error.code, "message": error.message, "param": getattr(error, "param", None)}
    return JSONResponse(body, status[type(error)], headers)


@pytest.fixture
def client(tokens, api_keys, used, store, clock):
    ice = IceConfig([IceServer(["stun:s.example:3478"])], ["turn:t.example:3478?transport=udp"], "secret")
    limits = MintLimits(per_key=20, per_page_key=8, per_address=5)
    minter = Minter(tokens, store, Policy(), ice=ice, limits=limits, default_ttl_seconds=300, clock=clock)
    app = FastAPI()
    app.include_router(token_routes(Authenticator(tokens, api_keys, used), minter))
    app.add_exception_handler(AuthError, render)
    return TestClient(app, client=("203.0.113.5", 40000))


@pytest.fixture
async def server_key(api_keys) -> dict[str, str]:
    plaintext, _ = await api_keys.create("server", ["mint"])
    return {"Authorization": f"Bearer {plaintext}"}


@pytest.fixture
async def page_key(api_keys) -> dict[str, str]:
    plaintext, _ = await api_keys.create("page", ["mint"], origins=[PAGE], agent="shop")
    return {"Authorization": f"Bearer {plaintext}", "Origin": PAGE}


def test_an_empty_request_gets_a_token_with_the_defaults(client, server_key, tokens, clock):
    answer = client.post(PATH, headers=server_key)
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"session_id", "token", "ice_servers", "expires_at", "agent", "model", "voice"}
    claims = tokens.verify(body["token"])
    assert (body["session_id"], body["expires_at"]) == (claims.session_id, claims.expires_at)
    assert body["expires_at"] == clock.now + 300
    assert isinstance(body["expires_at"], int)
    assert (body["agent"], body["model"], body["voice"]) == ("default", "small", None)
    assert (claims.agent, claims.model, claims.voice, claims.reusable) == ("default", "small", None, False)
    assert claims.origins == ()
    assert answer.headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in answer.headers


def test_the_ice_servers_go_straight_into_a_peer_connection(client, server_key, clock):
    body = client.post(PATH, headers=server_key, json={"ttl_seconds": 60}).json()
    stun, turn = body["ice_servers"]
    assert stun == {"urls": ["stun:s.example:3478"]}
    assert turn["urls"] == ["turn:t.example:3478?transport=udp"]
    assert turn["username"] == f"{int(clock.now) + 120}:{body['session_id']}"
    assert turn["credential"]


def test_what_is_asked_for_is_in_the_token(client, server_key, tokens, clock):
    wish = {"model": "large", "voice": "marin", "ttl_seconds": 10, "agent": "shop"}
    body = client.post(PATH, headers=server_key, json=wish).json()
    claims = tokens.verify(body["token"])
    assert (claims.model, claims.voice, claims.agent) == (body["model"], body["voice"], body["agent"])
    assert (claims.model, claims.voice, claims.agent) == ("large", "marin", "shop")
    assert claims.expires_at == clock.now + 10


async def test_a_session_lies_in_the_store_and_not_in_the_token(client, server_key, store, clock):
    session = {"instructions": "Speak like a pirate. Ä", "tools": [{"name": "x"}], "turn_detection": None}
    body = client.post(PATH, headers=server_key, json={"session": session, "ttl_seconds": 60}).json()
    assert await load_session(store, body["session_id"]) == session
    assert len(body["token"]) < 1000
    clock.now += 119
    assert await load_session(store, body["session_id"]) == session
    clock.now += 1
    assert await load_session(store, body["session_id"]) == {}


async def test_without_a_session_nothing_is_stored(client, server_key, store):
    for wish in ({}, {"session": {}}, {"session": None}):
        body = client.post(PATH, headers=server_key, json=wish).json()
        assert await load_session(store, body["session_id"]) == {}
    assert await store.scan("session:") == []
    assert await load_session(store, "no session\n") == {}


@pytest.mark.parametrize("content", [b"", b"  \n", b"{}"])
def test_an_empty_body_is_taken_with_any_content_type(client, server_key, content):
    assert client.post(PATH, headers=server_key, content=content).status_code == 200


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"ttl": 60}, "ttl", "'ttl'"),
        ({"modle": 1, "voise": 2}, "modle", "'modle', 'voise'"),
        ({"ttl_seconds": 9}, "ttl_seconds", "10"),
        ({"ttl_seconds": 3601}, "ttl_seconds", "3600"),
        ({"ttl_seconds": "60"}, "ttl_seconds", "integer"),
        ({"ttl_seconds": 60.5}, "ttl_seconds", "integer"),
        ({"ttl_seconds": True}, "ttl_seconds", "integer"),
        ({"ttl_seconds": 1e300}, "ttl_seconds", "3600"),
        ({"model": ""}, "model", "1 char"),
        ({"model": "x" * 129}, "model", "128"),
        ({"model": ["x"]}, "model", "string"),
        ({"model": "huge"}, "model", "known: small, large"),
        ({"agent": "nobody"}, "agent", "known: default, shop"),
        ({"session": []}, "session", "dict"),
        ({"session": "x"}, "session", "dict"),
    ],
)
def test_a_field_that_cannot_be_is_named(client, server_key, body, param, says):
    answer = client.post(PATH, headers=server_key, json=body)
    assert answer.status_code == 422
    assert answer.json()["param"] == param
    assert says in answer.json()["message"]


@pytest.mark.parametrize("content", [b"{", b"[]", b"null", b"1", b"\xff", b'{"ttl_seconds": NaN}', b"[" * 5000])
def test_what_is_no_json_object_is_refused(client, server_key, content):
    answer = client.post(PATH, headers=server_key, content=content)
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_json"


def test_a_whole_number_may_be_written_as_a_float(client, server_key, clock):
    body = client.post(PATH, headers=server_key, content=b'{"ttl_seconds": 60.0}').json()
    assert body["expires_at"] == clock.now + 60


def test_a_body_over_64_kb_is_not_parsed(client, server_key):
    fits = b'{"session": {"instructions": "' + b"a" * (MAX_BODY_BYTES - 33) + b'"}}'
    assert len(fits) == MAX_BODY_BYTES
    assert client.post(PATH, headers=server_key, content=fits).status_code == 200
    assert client.post(PATH, headers=server_key, content=fits + b" ").status_code == 413

    def endless():
        for _ in range(100):
            yield b"{" * 8192

    assert client.post(PATH, headers=server_key, content=endless()).json()["code"] == "request_too_large"


async def test_credentials_come_before_the_body(client, api_keys, tokens):
    no_scope, _ = await api_keys.create("chat", ["chat", "calls", "media"])
    token, _ = tokens.mint(subject="k", agent="default", ttl_seconds=60)
    cases = [
        ({}, 401, "missing_credentials"),
        ({"Authorization": "Basic YTpi"}, 401, "malformed_credentials"),
        ({"Authorization": "Bearer ifr_pk_proj_" + "a" * 43}, 401, "invalid_api_key"),
        ({"Authorization": "Bearer a.b.c"}, 401, "invalid_token"),
        ({"Authorization": f"Bearer {no_scope}"}, 403, "missing_scope"),
        ({"Authorization": f"Bearer {token}"}, 403, "api_key_required"),
    ]
    for headers, status, code in cases:
        answer = client.post(PATH, headers=headers, content=b"{" * (MAX_BODY_BYTES + 1))
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["cache-control"] == "no-store"


async def test_a_fixed_key_and_an_admin_key_mint(client, api_keys):
    api_keys.add_fixed("development")
    admin, _ = await api_keys.create("root", ["admin"])
    for plaintext in ("development", admin):
        assert client.post(PATH, headers={"Authorization": f"bearer {plaintext}"}).status_code == 200


async def test_a_key_for_one_agent_gets_no_other(client, api_keys):
    plaintext, _ = await api_keys.create("shop", ["mint"], agent="shop")
    headers = {"Authorization": f"Bearer {plaintext}"}
    assert client.post(PATH, headers=headers).json()["agent"] == "shop"
    assert client.post(PATH, headers=headers, json={"agent": "shop", "session": {"a": 1}}).status_code == 200
    answer = client.post(PATH, headers=headers, json={"agent": "default"})
    assert (answer.status_code, answer.json()["code"]) == (403, "agent_not_allowed")


def test_a_page_key_mints_from_its_page(client, page_key, tokens):
    answer = client.post(PATH, headers=page_key)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == PAGE
    assert "Origin" in answer.headers["vary"]
    claims = tokens.verify(answer.json()["token"])
    assert claims.origins == (PAGE,)
    assert claims.agent == "shop"


@pytest.mark.parametrize(
    "origin", [None, "null", "https://evil.example", "http://app.example", PAGE + ".evil.example", "é"]
)
def test_a_page_key_from_elsewhere_is_refused_and_unreadable(client, page_key, origin):
    headers = {"Authorization": page_key["Authorization"]}
    if origin is not None:
        headers["Origin"] = origin.encode("latin-1").decode("latin-1")
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    answer = client.post(PATH, headers=encoded, content=b"{" * 100)
    assert (answer.status_code, answer.json()["code"]) == (403, "origin_not_allowed")
    assert "access-control-allow-origin" not in answer.headers


def test_a_page_key_has_no_session_and_no_agent_of_its_own(client, page_key):
    for wish, code in (
        ({"session": {"instructions": "x"}}, "session_not_allowed"),
        ({"session": {}}, "session_not_allowed"),
        ({"agent": "default"}, "agent_not_allowed"),
    ):
        answer = client.post(PATH, headers=page_key, json=wish)
        assert (answer.status_code, answer.json()["code"]) == (403, code)
        # The page's own developer may read why.
        assert answer.headers["access-control-allow-origin"] == PAGE


def test_a_preflight_answers_any_origin(client):
    asked = {
        "Origin": "https://any.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    answer = client.options(PATH, headers=asked)
    assert answer.status_code == 204
    assert answer.content == b""
    assert answer.headers["access-control-allow-origin"] == "https://any.example"
    assert "POST" in answer.headers["access-control-allow-methods"]
    allowed = answer.headers["access-control-allow-headers"].lower()
    assert {"authorization", "content-type"} <= {name.strip() for name in allowed.split(",")}
    assert int(answer.headers["access-control-max-age"]) > 0
    assert "access-control-allow-credentials" not in answer.headers
    assert client.options(PATH).headers["access-control-allow-origin"] == "*"


def test_answers_and_errors_of_other_keys_can_be_read_by_any_page(client, server_key):
    headers = {**server_key, "Origin": "https://any.example"}
    assert client.post(PATH, headers=headers).headers["access-control-allow-origin"] == "https://any.example"
    wrong = client.post(PATH, headers=headers, json={"x": 1})
    assert wrong.headers["access-control-allow-origin"] == "https://any.example"
    assert "Retry-After" in wrong.headers["access-control-expose-headers"]


def test_a_key_over_its_limit_waits_for_the_next_minute(client, server_key, clock):
    assert [client.post(PATH, headers=server_key).status_code for _ in range(21)] == [200] * 20 + [429]
    answer = client.post(PATH, headers=server_key, content=b"{" * (MAX_BODY_BYTES + 1))
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60
    clock.now += int(answer.headers["retry-after"])
    assert client.post(PATH, headers=server_key).status_code == 200


async def test_one_keys_limit_is_not_anothers(client, server_key, api_keys):
    for _ in range(21):
        client.post(PATH, headers=server_key)
    plaintext, _ = await api_keys.create("another", ["mint"])
    assert client.post(PATH, headers={"Authorization": f"Bearer {plaintext}"}).status_code == 200


def test_a_page_key_is_limited_for_each_address_and_in_all(client, page_key):
    def mint(address: str) -> int:
        return TestClient(client.app, client=(address, 1)).post(PATH, headers=page_key).status_code

    assert [mint("203.0.113.5") for _ in range(9)] == [200] * 5 + [429] * 4
    # The refused ones did not use up what the page has: three of its eight are left.
    assert [mint(f"203.0.113.{n}") for n in range(10, 14)] == [200] * 3 + [429]


def test_one_customers_ipv6_addresses_are_one_visitor(client, page_key):
    def mint(address: str) -> int:
        return TestClient(client.app, client=(address, 1)).post(PATH, headers=page_key).status_code

    assert [mint(f"2001:db8:0:1::{n}") for n in range(1, 7)] == [200] * 5 + [429]
    assert mint("2001:db8:0:2::1") == 200
    assert mint("::ffff:203.0.113.7") == 200
    assert mint("testclient") == 200


def test_the_docs_describe_the_body_and_the_answer(client):
    operation = client.get("/openapi.json").json()["paths"][PATH]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert set(schema["properties"]) == {"model", "voice", "ttl_seconds", "agent", "session"}
    assert "$ref" not in json.dumps(schema)
    assert "200" in operation["responses"]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=200)
    | st.dictionaries(
        st.sampled_from(["model", "voice", "ttl_seconds", "agent", "session"]) | st.text(max_size=8),
        json_values,
        max_size=4,
    ).map(lambda value: json.dumps(value).encode("utf-8", "surrogatepass"))
)
def test_any_body_is_a_token_or_a_422(client, server_key, clock, body):
    clock.now += 60
    assert client.post(PATH, headers=server_key, content=body).status_code in (200, 422)
