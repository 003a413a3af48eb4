"""What the health routes answer while the server is full or draining."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from realtime.app import Services, create_app
from realtime.observe.watchdog import Watchdog
from realtime.settings import load
from realtime.store import writable
from realtime.store.sqlite import SqliteStore
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


def test_a_store_that_cannot_be_written_takes_the_node_out_until_it_can(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(writable, "EVERY_S", 0.0)
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    store = services.store
    assert isinstance(store, SqliteStore)
    key, _ = client.portal.call(partial(services.api_keys.create, "k", ["mint"]))

    def mint() -> int:
        body = {"session": {"instructions": "Be brief." * 500}}
        headers = {"Authorization": f"Bearer {key}"}
        return client.post("/v1/ai/realtime/token", json=body, headers=headers).status_code

    def limit(pages: int) -> None:
        store._thread.submit(store._connection.execute, f"PRAGMA max_page_count = {pages}").result()

    assert mint() == 200
    limit(1)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "store_unavailable"})
    assert int(answer.headers["Retry-After"]) > 0
    assert "full" in caplog.text
    assert str(store._path) not in answer.text
    while (status := mint()) == 200:
        pass
    assert status == 503
    assert client.get("/healthz").status_code == 200
    limit(10_000)
    assert client.get("/readyz").json() == {"status": "ready"}
    assert mint() == 200


def test_draining_says_so(client: TestClient):
    services: Services = client.app.state.services  # type: ignore[attr-defined]
    assert client.portal is not None
    client.portal.call(services.sessions.drain)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"status": "draining"})
    assert client.get("/healthz").status_code == 200
