"""Calls over HTTP, against a fake register and fake peers, with the real tokens and the real error pages."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI

from media.network import NetworkError
from realtime import problems
from realtime.store.memory import MemoryStore
from signaling.bodies import MAX_SESSION_BYTES
from signaling.caller import OVER_WEBRTC, Caller
from signaling.calls import CallRoutes, calls_routes, merge
from signaling.sdp import MAX_FRAGMENT_BYTES, MAX_OFFER_BYTES
from tests.signaling import offers
from tests.signaling.fakes import FakeCalls, FakePeer, negotiation_error
from token_service.api_keys import ApiKeys
from token_service.auth import Authenticator
from token_service.errors import InvalidRequest
from token_service.keys import SigningKeys
from token_service.minting import load_session, save_session
from token_service.tokens import Claims, Tokens
from token_service.used_tokens import UsedTokens

CALLS = "/v1/ai/realtime/calls"
SDP = {"content-type": "application/sdp"}
FRAGMENT = {"content-type": "application/trickle-ice-sdpfrag"}
ORIGIN = "https://app.example"
ICE = [
    {"urls": ["stun:turn.example:3478"]},
    {"urls": ["turn:turn.example:3478?transport=udp"], "username": 'u"1', "credential": "p\\w"},
]


@dataclass
class Server:
    """Everything a test wants to look at or turn."""

    client: httpx2.AsyncClient
    app: FastAPI
    calls: FakeCalls
    keys: ApiKeys
    tokens: Tokens
    used: UsedTokens
    store: MemoryStore
    clock: list[float]
    peers: list[FakePeer] = field(default_factory=list)
    next_peer: dict[str, Any] = field(default_factory=dict)
    has_peer: asyncio.Event = field(default_factory=asyncio.Event)

    def new_peer(self) -> FakePeer:
        self.has_peer.set()
        self.peers.append(FakePeer(**self.next_peer))
        return self.peers[-1]

    def token(self, **claims: Any) -> tuple[dict[str, str], Claims]:
        """An Authorization header and what its token says."""
        token, said = self.tokens.mint(**{"subject": "key1", "agent": "default", "ttl_seconds": 60, **claims})
        return {"authorization": f"Bearer {token}"}, said

    async def key(self, *scopes: str, **options: Any) -> dict[str, str]:
        plaintext, _ = await self.keys.create("test", scopes, **options)
        return {"authorization": f"Bearer {plaintext}"}

    async def post(self, auth: dict[str, str], body: Any = None, path: str = CALLS, **headers: str) -> httpx2.Response:
        content = offers.chrome() if body is None else body
        return await self.client.post(path, content=content, headers={**SDP, **auth, **headers})

    def left_nothing(self) -> bool:
        return not self.calls.calls and self.calls.reserved == 0 and all(peer.closed for peer in self.peers)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    clock = [1_900_000_000.0]
    store = MemoryStore(clock=lambda: clock[0])
    keys, calls = ApiKeys(store), FakeCalls()
    tokens = Tokens(SigningKeys.load_or_create(tmp_path), "issuer", "audience", clock=lambda: clock[0])
    used = UsedTokens(store, clock=lambda: clock[0])
    app = FastAPI()
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://server") as client:
        server = Server(client, app, calls, keys, tokens, used, store, clock)
        handlers = CallRoutes(
            calls=calls,
            callers=Authenticator(tokens, keys, used),
            used_tokens=used,
            new_peer=lambda: server.new_peer(),
            load_session=lambda session_id: load_session(store, session_id),
            ice_servers=lambda claims: ICE,
            known_model=lambda name: "small" if name == "small" else None,
        )
        app.include_router(calls_routes(handlers))
        app.include_router(calls_routes(handlers, prefix="/v1/realtime"))
        problems.install(app)
        yield server


def said(response: httpx2.Response) -> dict[str, Any]:
    """The `error` of an answer, whose form is checked on the way."""
    assert response.headers["content-type"].startswith("application/problem+json")
    body = response.json()
    assert body["status"] == response.status_code
    assert body["error"]["request_id"] == response.headers["x-request-id"]
    return dict(body["error"])


# -- a call ------------------------------------------------------------------------------------------


async def test_an_offer_opens_a_call(server: Server) -> None:
    auth, claims = server.token()
    response = await server.post(auth)
    assert response.status_code == 201
    assert response.headers["content-type"] == "application/sdp"
    assert response.headers["location"] == f"{CALLS}/rtc_{claims.session_id.removeprefix('sess_')}"
    assert response.text.startswith("v=0\r\n")
    assert "a=ice-options:trickle\r\n" in response.text
    assert response.headers.get_list("link") == [
        '<stun:turn.example:3478>; rel="ice-server"',
        '<turn:turn.example:3478?transport=udp>; rel="ice-server"; username="u\\"1"; credential="p\\\\w"; '
        'credential-type="password"',
    ]
    (call,) = server.calls.opened
    assert call.claims == claims
    assert call.session == {}
    assert call.leg.closed is None
    assert server.calls.reserved == 0


async def test_video_is_declined_and_the_call_opens(server: Server) -> None:
    auth, _ = server.token()
    response = await server.post(auth, offers.chrome_with_video())
    assert response.status_code == 201
    video = response.text.split("m=video ")[1].split("m=application")[0]
    assert "a=inactive\r\n" in video


async def test_both_prefixes_serve_the_same_calls(server: Server) -> None:
    auth, _ = server.token()
    response = await server.post(auth, path="/v1/realtime/calls")
    location = response.headers["location"]
    assert location.startswith("/v1/realtime/calls/rtc_")
    other = location.replace("/v1/realtime", "/v1/ai/realtime")
    fragment = "a=candidate:1 1 udp 100 10.0.0.9 4000 typ host\r\n"
    assert (await server.client.patch(other, content=fragment, headers={**FRAGMENT, **auth})).status_code == 204
    assert (await server.client.post(f"{location}/hangup", headers=auth)).status_code == 200
    assert server.left_nothing()


@pytest.mark.parametrize("as_files", [False, True])
async def test_a_form_brings_its_session_which_lies_over_the_stored_one(server: Server, as_files: bool) -> None:
    auth, claims = server.token()
    stored = {"instructions": "stored", "audio": {"input": {"a": 1}, "output": {"voice": "x"}}}
    await save_session(server.store, claims.session_id, stored, 60)
    session = json.dumps({"instructions": "mine", "audio": {"input": {"b": 2}}})
    names = ("offer.sdp", "session.json") if as_files else (None, None)
    form = {
        "sdp": (names[0], offers.chrome(), "application/sdp"),
        "session": (names[1], session, "application/json"),
    }
    response = await server.client.post(CALLS, params={"model": "small"}, files=form, headers=auth)
    assert response.status_code == 201
    assert server.calls.opened[0].session == {
        "model": "small",
        "instructions": "mine",
        "audio": {"input": {"a": 1, "b": 2}, "output": {"voice": "x"}},
    }


async def test_a_gateway_with_an_api_key_says_who_calls(server: Server) -> None:
    caller = {"number": "+15550001111", "dialled": "100", "parameters": {"queue": "late"}}
    for form in ({}, {"caller": (None, json.dumps(caller), "application/json")}):
        response = await server.client.post(
            CALLS, files={"sdp": (None, CHROME), **form}, headers=await server.key("calls")
        )
        assert response.status_code == 201
    assert server.calls.callers == [OVER_WEBRTC, Caller("phone", "+15550001111", "100", None, {"queue": "late"})]


async def test_who_calls_is_not_for_the_bearer_of_a_token_to_say(server: Server) -> None:
    auth, _ = server.token()
    form = {"sdp": (None, CHROME), "caller": (None, '{"number": "+15550001111"}')}
    response = await server.client.post(CALLS, files=form, headers=auth)
    assert (response.status_code, said(response)["code"]) == (403, "caller_not_allowed")
    assert server.left_nothing()


def test_sessions_merge_object_by_object_and_replace_everything_else() -> None:
    assert merge({"a": {"x": 1}, "b": [1], "c": 1}, {"a": {"y": 2}, "b": [2], "c": None}) == {
        "a": {"x": 1, "y": 2},
        "b": [2],
        "c": None,
    }


async def test_an_api_key_with_the_scope_opens_calls_too(server: Server) -> None:
    auth = await server.key("calls")
    first = await server.client.post(CALLS, params={"agent": "sales"}, content=offers.chrome(), headers={**SDP, **auth})
    second = await server.post(auth, offers.firefox())
    assert (first.status_code, second.status_code) == (201, 201)
    assert [call.claims.agent for call in server.calls.opened] == ["sales", ""]
    assert first.headers["location"] != second.headers["location"]


async def test_a_key_may_name_a_model_and_a_token_is_bound_to_its_own(server: Server) -> None:
    key = await server.key("calls")
    await server.post(key, path=f"{CALLS}?model=small")
    await server.post(key, offers.firefox(), path=f"{CALLS}?model=gpt-realtime")
    await server.post(server.token(model="large")[0], path=f"{CALLS}?model=small")
    assert [call.claims.model for call in server.calls.opened] == ["small", None, "large"]


async def test_a_reusable_token_opens_a_call_for_every_new_offer(server: Server) -> None:
    auth, _ = server.token(reusable=True)
    auth = {"authorization": auth["authorization"].replace("Bearer ", "Bearer ek_")}
    first, again, second = [await server.post(auth, body) for body in (None, None, offers.firefox())]
    assert [response.status_code for response in (first, again, second)] == [201, 201, 201]
    assert first.headers["location"] == again.headers["location"] != second.headers["location"]
    assert (await server.client.delete(second.headers["location"], headers=auth)).status_code == 200
    assert len(server.calls.calls) == 1


# -- who may ----------------------------------------------------------------------------------------------


class Untouchable:
    """A body that must not be read."""

    def __aiter__(self) -> Untouchable:
        return self

    async def __anext__(self) -> bytes:
        raise AssertionError("the body was read")


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "missing_credentials"),
        ("Basic abc", "malformed_credentials"),
        ("Bearer nonsense", "invalid_api_key"),
        ("Bearer a.b.c", "invalid_token"),
    ],
)
async def test_nobody_is_heard_without_credentials(server: Server, authorization: str | None, code: str) -> None:
    headers = {**SDP, **({"authorization": authorization} if authorization else {})}
    response = await server.client.post(CALLS, content=Untouchable(), headers=headers)
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert said(response)["code"] == code
    assert not server.peers


async def test_expired_and_revoked_tokens_open_nothing(server: Server) -> None:
    auth, claims = server.token()
    await server.used.revoke(claims.session_id)
    assert said(await server.post(auth))["code"] == "token_revoked"
    auth, _ = server.token()
    server.clock[0] += 61
    response = await server.post(auth)
    assert (response.status_code, said(response)["code"]) == (401, "token_expired")
    assert not server.peers


async def test_a_key_without_the_scope_and_a_token_for_another_agent_are_forbidden(server: Server) -> None:
    response = await server.post(await server.key("chat"))
    assert (response.status_code, said(response)["code"]) == (403, "missing_scope")
    for auth in (server.token(agent="sales")[0], await server.key("calls", agent="sales")):
        response = await server.post(auth, path=f"{CALLS}?agent=other")
        assert (response.status_code, said(response)["code"]) == (403, "agent_not_allowed")
    assert not server.peers


async def test_a_token_for_pages_works_from_those_pages_only(server: Server) -> None:
    auth, _ = server.token(origins=[ORIGIN])
    for origin in ({}, {"origin": "https://evil.example"}, {"origin": "null"}):
        response = await server.post(auth, **origin)
        assert (response.status_code, said(response)["code"]) == (403, "origin_not_allowed")
        assert "access-control-allow-origin" not in response.headers
    response = await server.post(auth, origin=ORIGIN)
    assert response.status_code == 201
    assert response.headers["access-control-allow-origin"] == ORIGIN
    exposed = response.headers["access-control-expose-headers"]
    assert {name.strip() for name in exposed.split(",")} == {"Location", "Link", "Retry-After", "X-Request-Id"}


async def test_a_page_can_read_why_it_was_refused(server: Server) -> None:
    response = await server.post({}, origin=ORIGIN)
    assert response.status_code == 401
    assert response.headers["access-control-allow-origin"] == "*"
    assert "X-Request-Id" in response.headers["access-control-expose-headers"]


# -- single use ---------------------------------------------------------------------------------------------


async def test_the_same_offer_again_gets_the_same_answer_and_another_offer_nothing(server: Server) -> None:
    auth, _ = server.token()
    first, again = await server.post(auth), await server.post(auth)
    assert (first.status_code, again.status_code) == (201, 201)
    assert (first.text, first.headers["location"]) == (again.text, again.headers["location"])
    other = await server.post(auth, offers.firefox())
    assert (other.status_code, said(other)["code"]) == (401, "token_used")
    assert len(server.calls.opened) == 1


async def test_the_same_answer_comes_again_even_when_the_server_is_full(server: Server) -> None:
    server.calls.limit = 1
    auth, _ = server.token()
    await server.post(auth)
    assert (await server.post(auth)).status_code == 201


async def test_a_token_whose_call_has_ended_is_used_up(server: Server) -> None:
    auth, _ = server.token()
    location = (await server.post(auth)).headers["location"]
    await server.client.delete(location, headers=auth)
    response = await server.post(auth)
    assert (response.status_code, said(response)["code"]) == (401, "token_used")
    assert len(server.calls.opened) == 1


async def test_two_identical_posts_at_once_are_one_call(server: Server) -> None:
    gate = asyncio.Event()
    server.next_peer = {"gate": gate}
    auth, _ = server.token()
    first = asyncio.create_task(server.post(auth))
    await server.has_peer.wait()
    second = asyncio.create_task(server.post(auth))
    for _ in range(50):
        await asyncio.sleep(0)
    gate.set()
    answers = await asyncio.gather(first, second)
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].text == answers[1].text
    assert answers[0].headers["location"] == answers[1].headers["location"]
    assert len(server.calls.opened) == len(server.peers) == 1


async def test_a_post_that_waited_for_one_that_failed_takes_its_turn(server: Server) -> None:
    gate = asyncio.Event()
    server.next_peer = {"gate": gate, "error": negotiation_error()}
    auth, _ = server.token()
    first = asyncio.create_task(server.post(auth))
    await server.has_peer.wait()
    second = asyncio.create_task(server.post(auth))
    for _ in range(50):
        await asyncio.sleep(0)
    server.next_peer = {}
    gate.set()
    answers = await asyncio.gather(first, second)
    assert [answer.status_code for answer in answers] == [422, 201]
    assert len(server.calls.calls) == 1


# -- what goes wrong ------------------------------------------------------------------------------------------

CHROME = offers.chrome()
WITHOUT_CODECS = re.sub(r"(opus/48000/2|PCM[UA]/8000)", "speex/16000", CHROME)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ("hello", 400, "not_sdp"),
        (CHROME + "a=x:" + "y" * MAX_OFFER_BYTES, 413, "too_large"),
        (offers.offer(offers.audio("0"), offers.audio("1"), offers.data("2")), 422, "several_audio"),
        (WITHOUT_CODECS, 422, "no_common_codec"),
        (CHROME.replace("a=rtcp-mux\r\n", ""), 422, "rtcp_mux_required"),
    ],
)
async def test_a_bad_offer_says_what_is_wrong_and_leaves_the_token_alone(
    server: Server, body: str, status: int, code: str
) -> None:
    auth, _ = server.token()
    response = await server.post(auth, body)
    error = said(response)
    assert (response.status_code, error["code"], error["param"]) == (status, code, "sdp")
    assert not server.peers
    assert (await server.post(auth)).status_code == 201


async def test_useless_candidates_never_refuse_a_call(server: Server) -> None:
    auth, _ = server.token()
    bad = "".join(
        f"a=candidate:{i} 1 {proto} 100 {address} 4000 typ host\n"
        for i, (proto, address) in enumerate(
            [("udp", "169.254.169.254"), ("tcp", "10.0.0.1"), ("udp", "x.local"), ("udp", "224.0.0.1")] * 10
        )
    )
    assert (await server.post(auth, offers.offer(offers.audio(candidates=bad), offers.data()))).status_code == 201
    assert server.peers[0].offer is not None
    assert "a=candidate" not in server.peers[0].offer


async def test_a_body_that_never_says_its_size_is_cut_off_at_the_limit(server: Server) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 100 * MAX_OFFER_BYTES:
            sent += 8192
            yield b"a=x\r\n" + b"y" * 8187

    auth, _ = server.token()
    response = await server.client.post(CALLS, content=endless(), headers={**SDP, **auth})
    assert response.status_code == 413
    assert sent < 3 * MAX_OFFER_BYTES


@pytest.mark.parametrize("kind", ["", "application/json", "text/plain", "application/x-www-form-urlencoded"])
async def test_another_content_type_is_told_which_one_it_must_be(server: Server, kind: str) -> None:
    auth, _ = server.token()
    response = await server.client.post(CALLS, content=CHROME, headers={**auth, "content-type": kind})
    assert response.status_code == 415
    assert "application/sdp" in said(response)["message"]
    assert response.headers["accept-post"] == "application/sdp"


@pytest.mark.parametrize(
    ("form", "status", "code"),
    [
        ({"session": (None, "{}")}, 400, "missing_part"),
        ({"sdp": (None, "hello")}, 400, "not_sdp"),
        ({"sdp": (None, CHROME), "session": (None, "{")}, 422, "invalid_json"),
        ({"sdp": (None, CHROME), "session": (None, "[]")}, 422, "invalid_value"),
        ({"sdp": (None, CHROME), "session": (None, "[" * 5000)}, 422, "invalid_json"),
        ({"sdp": (None, CHROME), "session": (None, "x" * (MAX_SESSION_BYTES + 1))}, 413, "too_large"),
        ({"sdp": (None, CHROME), "caller": (None, "[]")}, 422, "invalid_value"),
        ({"sdp": (None, CHROME), "caller": (None, '{"name": "x"}')}, 422, "invalid_value"),
        ({"sdp": (None, CHROME), "caller": (None, '{"number": 1}')}, 422, "invalid_value"),
        ({"sdp": (None, CHROME), "caller": (None, '{"number": "a\\nb"}')}, 422, "invalid_value"),
        ({"sdp": (None, CHROME), "caller": (None, '{"parameters": []}')}, 422, "invalid_value"),
        ({"sdp": (None, CHROME), "caller": (None, '{"parameters": {"a": {}}}')}, 422, "invalid_value"),
        ({"sdp": (None, "v=0" + "x" * MAX_OFFER_BYTES)}, 413, "too_large"),
        ({"sdp": (None, CHROME), "more": (None, "x" * 140_000)}, 413, "too_large"),
        ({f"part{i}": (None, "x") for i in range(20)}, 400, "malformed_form"),
        ({f"part{i}": ("name", "x") for i in range(20)}, 400, "malformed_form"),
    ],
)
async def test_a_bad_form_says_what_is_wrong(server: Server, form: Any, status: int, code: str) -> None:
    auth, _ = server.token()
    response = await server.client.post(CALLS, files=form, headers=auth)
    assert (response.status_code, said(response)["code"]) == (status, code)
    assert not server.peers


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b"x"),
        ("multipart/form-data; boundary=a", b"no boundary at all"),
        ("multipart/form-data; boundary=a", b"--a\r\n\r\nno name\r\n--a--\r\n"),
        ("multipart/form-data; boundary=a", b"--a\r\nContent-Disposition: form-data; name=sdp\r\n\r\ncut"),
        ("multipart/form-data; boundary=" + "a" * 300, b"x"),
    ],
)
async def test_garbage_in_the_shape_of_a_form_is_the_callers_fault(server: Server, kind: str, body: bytes) -> None:
    auth, _ = server.token()
    response = await server.client.post(CALLS, content=body, headers={**auth, "content-type": kind})
    assert response.status_code == 400
    assert said(response)["code"] in ("malformed_form", "missing_part")


async def test_a_full_server_says_when_to_come_back_and_keeps_the_token_fresh(server: Server) -> None:
    server.calls.limit = 0
    auth, _ = server.token()
    response = await server.post(auth)
    error = said(response)
    assert (response.status_code, error["code"], error["retryable"]) == (503, "full", True)
    assert response.headers["retry-after"] == "5"
    assert not server.peers
    server.calls.limit = 1
    assert (await server.post(auth)).status_code == 201


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (negotiation_error(), 422, "negotiation_failed"),
        (NetworkError("all UDP ports from 1 to 2 are in use"), 503, "no_network"),
        (RuntimeError("secret detail"), 500, "internal_error"),
    ],
)
async def test_a_peer_that_cannot_answer_leaves_nothing_behind(
    server: Server, error: Exception, status: int, code: str
) -> None:
    server.next_peer = {"error": error}
    auth, _ = server.token()
    response = await server.post(auth)
    assert (response.status_code, said(response)["code"]) == (status, code)
    assert "detail" not in response.text.replace('"detail":', "")
    assert server.left_nothing()
    server.next_peer = {}
    assert (await server.post(auth)).status_code == 201


@pytest.mark.parametrize(
    ("error", "status"),
    [(InvalidRequest("session.voice", "No such voice."), 422), (RuntimeError("secret detail"), 500)],
)
async def test_a_session_that_cannot_begin_leaves_nothing_behind(server: Server, error: Exception, status: int) -> None:
    server.calls.error = error
    auth, _ = server.token()
    response = await server.post(auth)
    assert response.status_code == status
    assert said(response)["param"] == ("session.voice" if status == 422 else None)
    assert "secret" not in response.text
    assert server.left_nothing()
    server.calls.error = None
    assert (await server.post(auth)).status_code == 201


async def test_an_answer_that_cannot_be_kept_ends_the_call(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("disk full")

    auth, _ = server.token()
    with monkeypatch.context() as patch:
        patch.setattr(server.used, "record", fail)
        assert (await server.post(auth)).status_code == 500
    assert server.left_nothing()
    assert (await server.post(auth)).status_code == 201


async def raw_post(server: Server, auth: dict[str, str], *, goes_away: bool) -> list[dict[str, Any]]:
    """One POST at the ASGI interface, whose client may leave once it has sent its offer."""
    incoming = [{"type": "http.request", "body": CHROME.encode(), "more_body": False}]
    outgoing: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if incoming:
            return incoming.pop(0)
        if not goes_away:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        outgoing.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": CALLS,
        "raw_path": CALLS.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in {**SDP, **auth}.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await server.app(scope, receive, send)
    return outgoing


async def test_a_caller_that_goes_away_leaves_nothing_behind_and_may_come_back(server: Server) -> None:
    auth, _ = server.token()
    assert await raw_post(server, auth, goes_away=True) == []
    assert server.left_nothing()
    assert len(server.peers) == 1
    assert (await raw_post(server, auth, goes_away=False))[0]["status"] == 201


async def test_a_request_that_is_cancelled_leaves_nothing_behind(server: Server) -> None:
    server.next_peer = {"gate": asyncio.Event()}
    auth, _ = server.token()
    request = asyncio.create_task(raw_post(server, auth, goes_away=False))
    await server.has_peer.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert server.left_nothing()
    server.next_peer = {}
    assert (await server.post(auth)).status_code == 201


# -- candidates ----------------------------------------------------------------------------------------------


def candidates(*addresses: str) -> str:
    return "a=ice-ufrag:4ZcD\r\n" + "".join(f"a=candidate:1 1 udp 100 {ip} 4000 typ host\r\n" for ip in addresses)


async def opened(server: Server, auth: dict[str, str]) -> str:
    return str((await server.post(auth)).headers["location"])


async def test_trickled_candidates_reach_the_peer_when_they_can_be_used(server: Server) -> None:
    auth, _ = server.token()
    location = await opened(server, auth)
    body = candidates("10.0.0.9", "169.254.169.254", "abc.local") + "a=candidate:\r\na=end-of-candidates\r\n"
    response = await server.client.patch(location, content=body, headers={**FRAGMENT, **auth, "origin": ORIGIN})
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["access-control-allow-origin"] == ORIGIN
    assert server.peers[0].candidates == ["1 1 udp 100 10.0.0.9 4000 typ host"]


async def test_a_call_takes_twenty_candidates_in_all(server: Server) -> None:
    auth, _ = server.token()
    location = await opened(server, auth)
    for first in (0, 100):
        body = candidates(*(f"10.0.0.{first + number}" for number in range(15)))
        assert (await server.client.patch(location, content=body, headers={**FRAGMENT, **auth})).status_code == 204
    assert len(server.peers[0].candidates) == 20 - 3, "three came with the offer"


@pytest.mark.parametrize(
    ("kind", "body", "status", "code"),
    [
        (FRAGMENT, candidates("10.0.0.9").replace("4ZcD", "abcd"), 422, "ice_restart"),
        (FRAGMENT, "hello", 400, "malformed_sdp"),
        (FRAGMENT, "", 400, "malformed_sdp"),
        (FRAGMENT, "a=x:" + "y" * MAX_FRAGMENT_BYTES, 413, "too_large"),
        (SDP, candidates("10.0.0.9"), 415, "unsupported_media_type"),
        ({}, candidates("10.0.0.9"), 415, "unsupported_media_type"),
    ],
)
async def test_a_bad_fragment_is_refused_and_the_call_lives_on(
    server: Server, kind: dict[str, str], body: str, status: int, code: str
) -> None:
    auth, _ = server.token()
    location = await opened(server, auth)
    response = await server.client.patch(location, content=body, headers={**kind, **auth})
    assert (response.status_code, said(response)["code"]) == (status, code)
    assert server.peers[0].closed is None
    assert server.peers[0].candidates == []


async def test_only_the_token_that_opened_a_call_or_a_key_reaches_it(server: Server) -> None:
    auth, _ = server.token()
    location = await opened(server, auth)
    server.clock[0] += 3600
    stranger = server.token()[0]
    body = candidates("10.0.0.9")
    for method in ("PATCH", "DELETE"):

        async def ask(auth: dict[str, str], path: str = location, method: str = method) -> int:
            return (await server.client.request(method, path, content=body, headers={**FRAGMENT, **auth})).status_code

        assert await ask({}) == 401
        assert await ask(stranger) == 404
        assert await ask(await server.key("chat")) == 403
        assert await ask(auth, f"{CALLS}/rtc_{'x' * 22}") == 404
        assert await ask(auth, f"{CALLS}/%00") == 404
    assert (await server.client.patch(location, content=body, headers={**FRAGMENT, **auth})).status_code == 204
    key = await server.key("calls")
    assert (await server.client.patch(location, content=body, headers={**FRAGMENT, **key})).status_code == 204
    assert (await server.client.delete(location, headers=key)).status_code == 200


async def test_hanging_up_ends_the_call_once(server: Server) -> None:
    auth, claims = server.token()
    await opened(server, auth)
    server.clock[0] += 3600
    response = await server.client.delete(f"{CALLS}/{claims.session_id}", headers=auth)
    assert (response.status_code, response.content) == (200, b"")
    assert server.peers[0].closed == "hangup"
    assert server.left_nothing()
    again = await server.client.delete(f"{CALLS}/{claims.session_id}", headers=auth)
    assert (again.status_code, said(again)["code"]) == (404, "call_not_found")


# -- OPTIONS ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CALLS, f"{CALLS}/rtc_x", "/v1/realtime/calls"])
async def test_a_preflight_is_answered_to_any_origin_without_credentials(server: Server, path: str) -> None:
    method = "DELETE" if "rtc_" in path else "POST"
    headers = {
        "origin": "https://any.example",
        "access-control-request-method": method,
        "access-control-request-headers": "authorization,content-type,x-openai-agents-sdk",
    }
    response = await server.client.options(path, headers=headers)
    assert response.status_code == 204
    assert response.headers["access-control-allow-origin"] == "https://any.example"
    assert method in response.headers["access-control-allow-methods"]
    allowed = response.headers["access-control-allow-headers"].lower()
    assert all(name in allowed for name in ("authorization", "content-type", "x-openai-agents-sdk"))
    assert int(response.headers["access-control-max-age"]) > 0


async def test_options_says_what_can_be_posted(server: Server) -> None:
    response = await server.client.options(CALLS)
    assert response.status_code == 200
    assert response.headers["accept-post"] == "application/sdp"
    assert response.headers["allow"] == "POST, OPTIONS"


async def test_other_methods_are_refused_as_problems(server: Server) -> None:
    response = await server.client.get(CALLS)
    assert (response.status_code, said(response)["code"]) == (405, "method_not_allowed")
