"""The routes of calls, served."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
from fastapi import FastAPI

from realtime import problems
from realtime.store.memory import MemoryStore
from signaling.calls import CallRoutes, calls_routes
from tests.signaling.fakes import FakeCalls
from tests.signaling.routes import ICE, Server
from token_service.api_keys import ApiKeys
from token_service.auth import Authenticator
from token_service.keys import SigningKeys
from token_service.minting import load_session
from token_service.tokens import Tokens
from token_service.used_tokens import UsedTokens


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
