"""What the health routes answer while the server is full or draining."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from realtime.app import Services, create_app
from realtime.observe.watchdog import Watchdog
from realtime.settings import load
from signaling.errors import Full


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    file = tmp_path / "realtime.toml"
    file.write_text("[limits]\ncalls = 2\nloop_lag_ms = 20")
    app = create_app(load(file, {"REALTIME_DATA": str(tmp_path)}), engines="instant")
    with TestClient(app) as running:
        yield running


def test_ready_when_there_is_room(client: TestClient):
    assert client.get("/readyz").json() == {"status": "ready"}
    assert client.get("/healthz").json() == {"status": "ok"}


def test_overloaded_while_the_loop_lags_and_a_call_would_suffer(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    monkeypatch.setattr(Watchdog, "lag_ms", 20.1)
    with services.sessions.reserve():
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "overloaded"})
        assert int(answer.headers["Retry-After"]) > 0
        with pytest.raises(Full) as refused:
            services.sessions.reserve()
        assert "lags 20.1 ms" in refused.value.reason
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/ai/status").json()["load"]["loop_lag_ms"] == 20.1
        monkeypatch.setattr(Watchdog, "lag_ms", 20.0)
        assert client.get("/readyz").status_code == 200
    assert 'realtime_calls_refused_total{reason="overloaded"} 1.0' in client.get("/metrics").text


def test_a_busy_machine_without_any_call_takes_one(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    monkeypatch.setattr(Watchdog, "lag_ms", 500.0)
    assert client.get("/readyz").status_code == 200
    with services.sessions.reserve():
        pass


def test_full_when_every_place_is_taken(client: TestClient):
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    with services.sessions.reserve(), services.sessions.reserve():
        assert client.get("/readyz").json() == {"status": "full"}
    assert client.get("/readyz").status_code == 200


def test_draining_says_so(client: TestClient):
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    assert client.portal is not None
    client.portal.call(services.sessions.drain)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "draining"})
    assert client.get("/healthz").status_code == 200
