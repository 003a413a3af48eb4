"""Calls over HTTP, with a fake register and fake peers, the real tokens and the real error pages."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import httpx2
from fastapi import FastAPI

from realtime.store.memory import MemoryStore
from tests.signaling import offers
from tests.signaling.fakes import FakeCalls, FakePeer
from token_service.api_keys import ApiKeys
from token_service.tokens import Claims, Tokens
from token_service.used_tokens import UsedTokens

CALLS = "/v1/ai/realtime/calls"
SDP = {"content-type": "application/sdp"}
CHROME = offers.chrome()
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


def said(response: httpx2.Response) -> dict[str, Any]:
    """The `error` of an answer, whose form is checked on the way."""
    assert response.headers["content-type"].startswith("application/problem+json")
    body = response.json()
    assert body["status"] == response.status_code
    assert body["error"]["request_id"] == response.headers["x-request-id"]
    return dict(body["error"])
