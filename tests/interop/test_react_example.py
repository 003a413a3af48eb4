"""examples/react-voice-button, bundled as its reader would bundle it, in Chromium; and the types under tsc."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.calls.server import ROOT, Server
from tests.web.conftest import BROWSERS, FLAGS
from tests.web.test_examples import page_key

sync_api = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.timeout(300)

PACKAGES = ("react@19.2.3", "react-dom@19.2.3", "esbuild@0.27.2", "typescript@5.9.3")
MAIN = """
import { createRoot } from "react-dom/client";
import { InfraiClient } from "infrai-realtime-client";
import { VoiceButton } from "./VoiceButton.jsx";

const client = new InfraiClient({ baseUrl: SERVER, apiKey: KEY });
createRoot(document.getElementById("root")).render(<VoiceButton client={client} agent="default" />);
"""
TYPED = """
import { InfraiClient, InfraiError, connectWebRtc, type Transport } from "infrai-realtime-client";

const client = new InfraiClient({ apiKey: "key", baseUrl: "https://voice.example" });
const token = async () => (await client.ai.liveToken()).token;
const call = client.ai.live({ microphone: { deviceId: "one" }, token });
const off: () => void = call.on("transcript", ({ role, unheard }) => console.log(role === "user", unheard.length));
call.on("turn", ({ metrics }) => console.log(metrics.voice_to_voice_ms ?? 0));
call.on("response.done", (event) => console.log(event.event_id));
call.on("closed", ({ error }) => console.log(error instanceof InfraiError && error.retryAfter));
const transports: Transport[] = [connectWebRtc];
await call.ready;
call.send({ type: "response.create" });
client.ai.live({ transports });
off();
// @ts-expect-error an answer has no such field
call.on("transcript", ({ volume }) => console.log(volume));
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the packages, the client among them as npm packs it, and the component."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not installed")
    folder = tmp_path_factory.mktemp("react")
    (folder / "package.json").write_text('{"private": true, "type": "module"}', encoding="utf-8")
    static = str(ROOT / "realtime/web/static")
    packed = subprocess.run(
        [npm, "pack", "--silent", static], cwd=folder, check=True, capture_output=True, text=True, timeout=60
    )
    command = [npm, "install", "--no-audit", "--no-fund", "--silent", f"./{packed.stdout.split()[-1]}", *PACKAGES]
    subprocess.run(command, cwd=folder, check=True, timeout=240)
    shutil.copy(ROOT / "examples/react-voice-button/VoiceButton.jsx", folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server"), "--engines", "instant") as running:
        yield running


def test_the_types_hold(project: Path) -> None:
    (project / "use.ts").write_text(TYPED, encoding="utf-8")
    options = ["--noEmit", "--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom,dom.iterable"]
    command = [str(project / "node_modules/.bin/tsc"), *options, "use.ts"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


def test_the_component_holds_a_call(project: Path, server: Server) -> None:
    browser_path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser_path is None:
        pytest.skip("no Chromium is installed")
    site = project / "site"
    site.mkdir()
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(site))
    with (
        socketserver.ThreadingTCPServer(("127.0.0.1", 0), handler) as web,
        sync_api.sync_playwright() as playwright,
    ):
        threading.Thread(target=web.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{web.server_address[1]}"
        bundle(project, server.url, page_key(server, url), site / "main.js")
        (site / "index.html").write_text('<div id="root"></div><script src="main.js"></script>', encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=browser_path, args=list(FLAGS))
        page = browser.new_page()
        page.goto(url)
        page.get_by_role("button", name="Talk").click()
        sync_api.expect(page.get_by_role("status")).to_have_text("Listening", timeout=15_000)
        page.get_by_role("button", name="Mute").click()
        sync_api.expect(page.get_by_role("button", name="Mute")).to_have_attribute("aria-pressed", "true")
        page.get_by_role("button", name="Hang up").click()
        sync_api.expect(page.get_by_role("button", name="Talk")).to_be_visible()
        browser.close()
        web.shutdown()


def bundle(project: Path, server_url: str, key: str, target: Path) -> None:
    main = MAIN.replace("SERVER", json.dumps(server_url)).replace("KEY", json.dumps(key))
    (project / "main.jsx").write_text(main, encoding="utf-8")
    options = ["--bundle", "--jsx=automatic", "--format=iife", f"--outfile={target}", "--log-level=error"]
    command = [str(project / "node_modules/.bin/esbuild"), "main.jsx", *options]
    subprocess.run(command, cwd=project, check=True, timeout=60)
