"""The page in headless Chromium, with a fake microphone that says what a WAV file says."""

from __future__ import annotations

import json
import os
import shutil
import wave
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.calls.server import Server
from tests.realtime.live.orders import OrderChecker

sync_api = pytest.importorskip("playwright.sync_api", reason='playwright is not installed: pip install -e ".[test]"')
PATIENCE_MS = 20_000
"""Speech that is waited for takes 3 s on an idle machine; playwright's 5 s are too short for a busy one."""
sync_api.expect.set_options(timeout=PATIENCE_MS)
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
AUDIO = Path(__file__).parents[1] / "audio"
MICROPHONE_HZ = 48_000
LEAD_S = 1.2
"""Silence before the first words: the call has to be up by then."""
PAUSE_S = 1.6
"""After the first words: the answer has begun by then, and is still going on."""
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--ignore-certificate-errors",  # of a relay over TLS, whose certificate is its own
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--host-resolver-rules=MAP voice.test 127.0.0.1",
)

LISTEN = """(() => {
  const told = (window.toldByServer = []);
  const listenTo = (source) => {
    const events = [];
    told.push(events);
    source.addEventListener("message", ({ data }) => typeof data === "string" && events.push(data));
    return source;
  };
  const create = RTCPeerConnection.prototype.createDataChannel;
  RTCPeerConnection.prototype.createDataChannel = function (...how) { return listenTo(create.apply(this, how)); };
  window.WebSocket = class extends WebSocket { constructor(...how) { super(...how); listenTo(this); } };
})()"""
"""Keeps every event of every call of a page."""

NewPage = Callable[..., "sync_api.Page"]


@pytest.fixture(scope="package")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Silence, "hello how are you today", a pause, "what is the weather like in london tomorrow"."""
    path = tmp_path_factory.mktemp("microphone") / "talk.wav"
    silence = [np.zeros(int(seconds * 16_000), np.int16) for seconds in (LEAD_S, PAUSE_S, 0.5)]
    pcm = np.concatenate(
        [
            silence[0],
            _clip("synth_flite_slt_how_are_you.wav"),
            silence[1],
            _clip("synth_flite_rms_weather_london.wav"),
            silence[2],
        ]
    )
    tripled = np.interp(np.arange(len(pcm) * 3) / 3, np.arange(len(pcm)), pcm).astype(np.int16)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, MICROPHONE_HZ, 0, "NONE", ""))
        file.writeframes(tripled.tobytes())
    return path


def _clip(name: str) -> np.ndarray:
    with wave.open(str(AUDIO / name)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def chromium() -> str:
    """The path of the installed one; skips the test where there is none."""
    path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium is installed: `make browsers` installs it where it may")
    return path


@pytest.fixture(scope="package")
def browser(microphone: Path) -> Iterator[sync_api.Browser]:
    path = chromium()
    with sync_api.sync_playwright() as playwright:
        flags = [*FLAGS, f"--use-file-for-fake-audio-capture={microphone}%noloop"]
        started = playwright.chromium.launch(executable_path=path, args=flags)
        yield started
        started.close()


@pytest.fixture
def new_page(browser: sync_api.Browser, request: pytest.FixtureRequest) -> Iterator[NewPage]:
    """Opens pages, each in a profile of its own. Fails on any script error in them, and on any event out of order."""
    contexts = []
    errors: list[str] = []

    def make(url: str | None = None, *, script: str = "", **options: object) -> sync_api.Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **options})
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        context.add_init_script(LISTEN)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        if url is not None:
            page.goto(url)
        return page

    yield make
    for number, context in enumerate(contexts):
        if folder := os.environ.get("SCREENSHOTS"):  # to be looked at: how each test left its pages
            context.pages[0].screenshot(path=Path(folder) / f"{request.node.name}-{number}.png", full_page=True)
        for events in context.pages[0].evaluate("window.toldByServer ?? []"):
            checker = OrderChecker()
            for event in events:
                checker.see(json.loads(event))
        context.close()
    assert errors == []


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the embedded engines."""
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="package")
def instant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With engines that answer at once: five seconds of tone."""
    with Server(tmp_path_factory.mktemp("instant"), "--engines", "instant") as running:
        yield running
