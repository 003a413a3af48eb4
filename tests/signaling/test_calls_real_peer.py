"""A call opened over HTTP between a real peer of ours and a bare aiortc client, over loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aioice.ice
import httpx2
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from fastapi import FastAPI

from media.network import Network
from media.pacer import Pacer
from media.peer import Peer
from realtime import problems
from realtime.store.memory import MemoryStore
from signaling.calls import CallRoutes, calls_routes
from tests.signaling.fakes import FakeCalls
from token_service.api_keys import ApiKeys
from token_service.auth import Authenticator
from token_service.keys import SigningKeys
from token_service.tokens import Tokens
from token_service.used_tokens import UsedTokens

CALLS = "/v1/ai/realtime/calls"
DEADLINE_S = 15.0


@pytest.fixture
async def house(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[httpx2.AsyncClient, FakeCalls, dict[str, str]]]:
    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda **_: ["127.0.0.1"])
    store, calls, pacer = MemoryStore(), FakeCalls(), Pacer()
    tokens, used = Tokens(SigningKeys.load_or_create(tmp_path), "issuer", "audience"), UsedTokens(store)
    network = Network(interfaces=["127.0.0.1"])

    async def no_session(_: str) -> dict[str, object]:
        return {}

    handlers = CallRoutes(
        calls=calls,
        callers=Authenticator(tokens, ApiKeys(store), used),
        used_tokens=used,
        new_peer=lambda: Peer(network=network, pacer=pacer),
        load_session=no_session,
        ice_servers=lambda _: [],
        allow_loopback=True,
    )
    app = FastAPI()
    app.include_router(calls_routes(handlers))
    problems.install(app)
    token, _ = tokens.mint(subject="key1", agent="default", ttl_seconds=60)
    pacer.start()
    try:
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://server") as client:
            yield client, calls, {"authorization": f"Bearer {token}"}
    finally:
        for call in list(calls.calls.values()):
            await call.leg.close()
        pacer.stop()


def without_candidates(sdp: str) -> tuple[str, str]:
    """The offer as a trickling browser posts it, and the fragment that it sends afterwards."""
    lines = sdp.splitlines()
    trickled = ("a=candidate:", "a=end-of-candidates")
    fragment = [line for line in lines if line.startswith(("a=ice-ufrag:", "a=ice-pwd:", "a=candidate:"))]
    bare = [line for line in lines if not line.startswith(trickled)]
    return "".join(f"{line}\r\n" for line in bare), "".join(f"{line}\r\n" for line in dict.fromkeys(fragment))


@pytest.mark.parametrize("trickle", [False, True])
async def test_a_bare_aiortc_client_connects_and_is_hung_up_on(
    house: tuple[httpx2.AsyncClient, FakeCalls, dict[str, str]], trickle: bool
) -> None:
    client, calls, auth = house
    caller = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    readable, closed = asyncio.Event(), asyncio.Event()
    try:
        caller.addTransceiver("video")
        caller.addTransceiver("audio")
        channel = caller.createDataChannel("oai-events")
        channel.on("open", readable.set)
        caller.on("connectionstatechange", lambda: closed.set() if caller.connectionState == "closed" else None)
        await caller.setLocalDescription(await caller.createOffer())
        whole = caller.localDescription.sdp
        offer, fragment = without_candidates(whole) if trickle else (whole, "")
        response = await client.post(CALLS, content=offer, headers={"content-type": "application/sdp", **auth})
        assert response.status_code == 201, response.text
        location = response.headers["location"]
        (call,) = calls.opened
        if trickle:
            headers = {"content-type": "application/trickle-ice-sdpfrag", **auth}
            assert (await client.patch(location, content=fragment, headers=headers)).status_code == 204
        await caller.setRemoteDescription(RTCSessionDescription(response.text, "answer"))
        async with asyncio.timeout(DEADLINE_S):
            await call.listener.opened.wait()
            await readable.wait()
            assert (await client.delete(location, headers=auth)).status_code == 200
            await closed.wait()
        assert not calls.calls
    finally:
        await caller.close()
