"""The register of calls: a place is held from the first look at an offer to the end of its call, and counts once."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from realtime.app import Services, create_app
from realtime.live.sessions import Sessions
from realtime.live.socket_leg import SocketLeg
from realtime.settings import load
from signaling.caller import Caller
from signaling.errors import Full
from token_service.tokens import Claims, new_session_id


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    file = tmp_path / "realtime.toml"
    file.write_text("[limits]\ncalls = 2\nloop_lag_ms = 10_000")
    app = create_app(load(file, {"REALTIME_DATA": str(tmp_path)}), engines="instant")
    with TestClient(app) as running:
        yield running


def claims(agent: str = "default") -> Claims:
    now = int(time.time())
    return Claims(
        session_id=new_session_id(), jti="one", subject="key_1", agent=agent, issued_at=now, expires_at=now + 60
    )


def test_a_call_that_is_still_being_answered_takes_one_place(client: TestClient):
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    sessions = services.sessions

    async def answer_two(sessions: Sessions) -> None:
        for taken in (1, 2):
            with sessions.reserve() as place:
                leg = SocketLeg()
                await sessions.open(leg, claims(), {}, Caller("websocket"), place=place)
                assert (len(sessions), sessions.accepts) == (taken, taken < 2)
        with pytest.raises(Full):
            sessions.reserve()
        await sessions.drain()

    assert client.portal is not None
    client.portal.call(answer_two, sessions)


def test_a_place_that_came_to_nothing_is_free_again(client: TestClient):
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    with services.sessions.reserve(), services.sessions.reserve():
        assert not services.sessions.accepts
    assert services.sessions.accepts
