"""`@openai/agents-realtime` in headless Chromium, over WebRTC and WebSocket, from a page of another origin."""

from __future__ import annotations

import functools
import json
import shutil
import threading
import urllib.request
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.sync.client import connect as dial

from tests.calls.server import API_KEY, Server
from tests.interop.conftest import AUDIO, CLIPS, HERE

sync_api = pytest.importorskip("playwright.sync_api", reason='playwright is not installed: pip install -e ".[test]"')

BUNDLE = Path("node_modules/@openai/agents-realtime/dist/bundle")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
CUT_MS = 400
"""Talking over the answer silences it within this, in the browser's own ears."""
LIMIT_MS = 20_000


class _Files(SimpleHTTPRequestHandler):
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript"}

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def origin(environment: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the page and the unmodified bundle are served."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(HERE / "browser" / "index.html", folder)
    (folder / "bundle").symlink_to(environment("node") / BUNDLE)
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Files, directory=str(folder))) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()


@pytest.fixture(scope="module")
def instant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("instant"), "--engines", "instant") as running:
        yield running


@contextmanager
def browser(path: Path, *script: str | float) -> Iterator[Any]:
    """Chromium, whose microphone gives `script`: names of clips, and seconds of silence. `path`: for the file."""
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    parts = [_clip(CLIPS[part]) if isinstance(part, str) else np.zeros(int(part * 16_000), np.int16) for part in script]
    pcm = np.concatenate(parts)
    tripled = np.interp(np.arange(len(pcm) * 3) / 3, np.arange(len(pcm)), pcm).astype(np.int16)
    with wave.open(str(path / "microphone.wav"), "wb") as file:
        file.setparams((1, 2, 48_000, 0, "NONE", ""))
        file.writeframes(tripled.tobytes())
    with sync_api.sync_playwright() as playwright:
        microphone = f"--use-file-for-fake-audio-capture={path / 'microphone.wav'}%noloop"
        started = playwright.chromium.launch(executable_path=found, args=[*FLAGS, microphone])
        yield started
        started.close()


def _clip(name: str) -> np.ndarray:
    with wave.open(str(AUDIO / name)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


class Caller:
    """A page that has connected, and what it saw."""

    def __init__(self, browser: Any, origin: str, url: str, secret: str, transport: str) -> None:
        self.page = browser.new_page()
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.goto(origin)
        self.page.wait_for_function("window.ready")
        self.call_id = self.page.evaluate(
            "(how) => window.connect(how)", {"transport": transport, "url": url, "apiKey": secret}
        )

    def until(self, condition: str) -> None:
        self.page.wait_for_function(condition, timeout=LIMIT_MS)

    def until_event(self, kind: str, number: int = 1) -> None:
        self.until(f"window.events.filter(({{event}}) => event.type === '{kind}').length >= {number}")

    def finish(self, record: Path) -> list[tuple[float, dict[str, Any]]]:
        """Every event with its time (ms), written to the record."""
        events = self.page.evaluate("window.events")
        record.write_text("".join(json.dumps(entry["event"]) + "\n" for entry in events), encoding="utf-8")
        assert self.problems == []
        return [(entry["at"], entry["event"]) for entry in events]


def _post(server: Server, path: str, body: bytes = b"") -> bytes:
    headers = {"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(server.url + path, body, headers), timeout=10) as answer:
        return bytes(answer.read())


def _secret(server: Server) -> str:
    return str(json.loads(_post(server, "/v1/realtime/client_secrets", b"{}"))["value"])


def test_webrtc_speech_is_understood_and_answered_with_a_tool(server, origin, records, tmp_path):
    with browser(tmp_path, 1.5, "how_are_you", 7.0, "weather", 2.0) as chromium:
        caller = Caller(chromium, origin, f"{server.url}/v1/realtime/calls", _secret(server), "webrtc")
        assert caller.call_id.startswith("rtc_")
        assert caller.page.evaluate("window.connectMs") < 4000, "connect() gave up waiting for session.updated"
        caller.until("window.texts('user').some((text) => text.endsWith('today'))")
        caller.until("window.loud.length > 50")
        caller.until("window.texts('assistant').some((text) => /purple rain/.test(text))")
        caller.until_event("output_audio_buffer.stopped", 2)
        assert caller.page.evaluate("window.runs") == 1
        with dial(
            f"{server.url.replace('http', 'ws')}/v1/realtime?call_id={caller.call_id}",
            additional_headers={"Authorization": f"Bearer {API_KEY}"},
        ) as side:
            assert json.loads(side.recv())["type"] == "session.created"
            side.send(
                json.dumps(
                    {"type": "session.update", "session": {"type": "realtime", "instructions": "From the side."}}
                )
            )
            assert json.loads(side.recv())["session"]["instructions"] == "From the side."
            caller.until("window.events.some(({event}) => event.session?.instructions === 'From the side.')")
            _post(server, f"/v1/realtime/calls/{caller.call_id}/hangup")
            caller.until("window.states.includes('disconnected')")
        events = caller.finish(records / "browser-webrtc.jsonl")
    kinds = [event["type"] for _, event in events]
    assert "response.output_audio.delta" not in kinds
    assert kinds.index("response.content_part.added") < kinds.index("output_audio_buffer.started")
    assert kinds.index("response.done") < kinds.index("output_audio_buffer.stopped")


def test_webrtc_talking_over_the_answer_silences_it(instant, origin, records, tmp_path):
    with browser(tmp_path, 1.5, "how_are_you", 2.4, "weather", 0.5) as chromium:
        caller = Caller(chromium, origin, f"{instant.url}/v1/realtime/calls", _secret(instant), "webrtc")
        caller.until_event("output_audio_buffer.cleared")
        caller.page.wait_for_timeout(1000)
        loud = caller.page.evaluate("window.loud")
        events = caller.finish(records / "browser-barge-in.jsonl")
    times: dict[str, float] = {}
    for at, event in events:
        times[event["type"]] = (
            at if event["type"] == "input_audio_buffer.speech_started" else times.get(event["type"], at)
        )
    started, cleared = times["input_audio_buffer.speech_started"], times["output_audio_buffer.cleared"]
    until_then = [at for at in loud if at < started]
    assert len(until_then) > 50, "the answer was to be heard"
    still = max((at for at in loud if started < at < started + 1000), default=started)
    assert still - started < CUT_MS, f"audible for {still - started:.0f} ms more"
    assert cleared - started < CUT_MS
    kinds = [event["type"] for _, event in events]
    assert "conversation.item.truncated" in kinds


def test_websocket_from_a_page(server, origin, records, tmp_path):
    with browser(tmp_path, 0.5) as chromium:
        url = server.url.replace("http", "ws") + "/v1/realtime"
        caller = Caller(chromium, origin, url, _secret(server), "websocket")
        caller.page.evaluate("window.session.sendMessage('Tell me a joke.')")
        caller.until_event("response.done")
        caller.until("window.texts('assistant').length === 1")
        events = caller.finish(records / "browser-websocket.jsonl")
    assert any(event["type"] == "response.output_audio.delta" for _, event in events)
