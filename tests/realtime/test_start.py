"""What must not keep the server from starting."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from media import peer
from tests.realtime.gateway.server import running, settings


def test_a_machine_too_busy_to_warm_up_serves_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(peer, "_NEGOTIATION_S", 0.0)
    with caplog.at_level(logging.WARNING), running(settings(tmp_path), engines="instant") as server:
        assert server.client.get("/readyz").status_code == 200
    assert "the first call will take a moment longer" in caplog.text
