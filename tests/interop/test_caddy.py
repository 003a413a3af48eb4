"""deploy/Caddyfile in front of a real server: the page comes through, and nobody counts as local behind it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.calls.server import ROOT, Server, free_port

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of Caddy, over plain HTTP: a certificate needs a name that the world can reach."""
    caddy = shutil.which("caddy")
    if caddy is None:
        pytest.skip("caddy is not installed: apt-get install caddy")
    folder = tmp_path_factory.mktemp("caddy")
    with Server(folder / "server", "--engines", "instant") as server:
        url = f"http://127.0.0.1:{free_port()}"
        environ = {
            **os.environ,
            "VOICE_NAME": url,
            "VOICE_UPSTREAM": f"127.0.0.1:{server.port}",
            "XDG_DATA_HOME": str(folder),
            "XDG_CONFIG_HOME": str(folder),
        }
        config = (ROOT / "deploy/Caddyfile").read_text(encoding="utf-8")
        own = folder / "Caddyfile"
        own.write_text("{\n\tadmin off\n}\n" + config, encoding="utf-8")
        process = subprocess.Popen(
            [caddy, "run", "--config", str(own), "--adapter", "caddyfile"],
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=(folder / "log").open("wb"),
        )
        try:
            wait_for(url, folder / "log")
            yield url
        finally:
            process.terminate()
            process.wait(15)


def wait_for(url: str, log: Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(OSError):
            urllib.request.urlopen(url, timeout=2)
            return
        time.sleep(0.05)
    raise AssertionError(log.read_text())


def test_the_page_comes_through_with_its_headers(proxy: str) -> None:
    with urllib.request.urlopen(f"{proxy}/", timeout=10) as answer:
        assert b"<title>Talk" in answer.read()
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Strict-Transport-Security"]


def test_behind_a_proxy_nobody_is_local(proxy: str) -> None:
    """Caddy connects from loopback and was asked under a loopback name: its headers give it away."""
    with urllib.request.urlopen(f"{proxy}/page/session", timeout=10) as answer:
        assert json.load(answer) == {"access": False}
