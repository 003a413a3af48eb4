"""Calls over HTTP that come to nothing: bad offers, a full server, peers and callers that fail. Nothing is left."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from media.network import NetworkError
from signaling.bodies import MAX_SESSION_BYTES
from signaling.sdp import MAX_OFFER_BYTES
from tests.signaling import offers
from tests.signaling.fakes import negotiation_error
from tests.signaling.routes import CALLS, CHROME, SDP, Server, said
from token_service.errors import InvalidRequest

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
