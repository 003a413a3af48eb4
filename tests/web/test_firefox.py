"""The page in Firefox, driven over WebDriver BiDi, which Firefox speaks by itself.

Its fake microphone is a tone, which is not speech: what is said is typed, what is answered is heard.
"""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

from tests.calls.server import Server

PREFERENCES = {
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "app.normandy.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
}
RECORD = """() => {
    const Stock = window.RTCPeerConnection;
    window.RTCPeerConnection = class extends Stock {
        constructor(...options) {
            super(...options);
            window.connection = this;
        }
    };
}"""
INBOUND = """connection.getStats().then((stats) =>
    [...stats.values()].find(({ type, kind }) => type === "inbound-rtp" && kind === "audio"))"""
LOUD = 0.05
"""Of full scale, as Firefox decodes it; the page's own meter stands still where the machine has no sound device."""
READY_S = 60.0
WAIT_S = 30.0


class Firefox:
    """One tab of it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self.command("session.new", capabilities={})
        self._tab = self.command("browsingContext.getTree")["contexts"][0]["context"]

    def command(self, method: str, **params: object) -> dict[str, Any]:
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while (answer := json.loads(self._socket.recv(timeout=WAIT_S))).get("id") != number:
            pass
        assert answer["type"] == "success", answer
        return dict(answer["result"])

    def open(self, url: str) -> None:
        self.command("browsingContext.navigate", context=self._tab, url=url, wait="complete")

    def run(self, script: str) -> Any:
        """The JSON value of an expression, as if it were run inside a tap."""
        answer = self.command(
            "script.evaluate",
            expression=f"Promise.resolve({script}).then(JSON.stringify)",
            target={"context": self._tab},
            awaitPromise=True,
            userActivation=True,
        )
        assert answer["type"] == "success", answer
        value = answer["result"].get("value")
        return None if value is None else json.loads(value)

    def until(self, condition: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not self.run(condition):
            assert time.monotonic() < deadline, f"{condition}: {self.run('document.body.innerText')}"
            time.sleep(0.02)


@pytest.fixture
def firefox(tmp_path: Path) -> Iterator[Firefox]:
    path = shutil.which("firefox-esr") or shutil.which("firefox")
    if path is None:
        pytest.skip("Firefox is not installed: apt-get install firefox-esr")
    profile = tmp_path / "profile"
    profile.mkdir()
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in PREFERENCES.items()]
    (profile / "user.js").write_text("\n".join(lines), encoding="utf-8")
    command = [path, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port=0", "about:blank"]
    log = tmp_path / "log"
    process = subprocess.Popen(command, stdout=log.open("wb"), stderr=subprocess.STDOUT)
    try:
        with connect(f"{address(log)}/session", max_size=None, open_timeout=WAIT_S) as socket:
            yield Firefox(socket)
    finally:
        process.terminate()
        process.wait(15)


def address(log: Path) -> str:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if found := re.search(r"WebDriver BiDi listening on (ws://\S+)", log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.05)
    raise AssertionError(log.read_text(errors="replace"))


def test_a_call_is_up_heard_cut_and_hung_up(instant: Server, firefox: Firefox) -> None:
    firefox.command("script.addPreloadScript", functionDeclaration=RECORD)
    firefox.open(instant.url)
    firefox.run("document.querySelector('#talk').click()")
    firefox.until("document.body.dataset.state === 'live'")
    assert "websocket" not in firefox.run("document.querySelector('#facts').textContent")
    typed = "document.querySelector('#text').value = '{}', document.querySelector('#typed').requestSubmit()"
    firefox.run(typed.format("hello"))
    firefox.until("document.body.dataset.activity === 'speaking'")
    firefox.until(f"{INBOUND}.then(({{ audioLevel }}) => audioLevel > {LOUD})")
    firefox.run(typed.format("Stop"))
    firefox.until("document.querySelectorAll('#words .assistant s').length === 1")
    firefox.run("document.querySelector('#talk').click()")
    firefox.until("document.body.dataset.state === 'closed'")
    assert firefox.run("[...document.querySelectorAll('#words .note')].at(-1).textContent") == "You hung up."
    assert firefox.run("document.querySelector('#problem').hidden")
