"""Calls over HTTP: opened, by whom, once, reached and hung up. The peers are fakes."""

from __future__ import annotations

import asyncio
import json

import pytest

from signaling.caller import OVER_WEBRTC, Caller
from signaling.calls import merge
from signaling.sdp import MAX_FRAGMENT_BYTES
from tests.signaling import offers
from tests.signaling.fakes import negotiation_error
from tests.signaling.routes import CALLS, CHROME, FRAGMENT, ORIGIN, SDP, Server, said
from token_service.minting import save_session


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
