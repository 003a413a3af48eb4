"""The examples, and keys in pages of other origins: each example is served as its reader would serve it."""

from __future__ import annotations

import functools
import http.server
import json
import os
import re
import socketserver
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.calls.server import API_KEY, ROOT, Server, free_port
from tests.web.conftest import NewPage

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

EXAMPLES = ROOT / "examples"


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """A folder behind a web server of its own: a page of another origin. Gives the port."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        try:
            yield int(site.server_address[1])
        finally:
            site.shutdown()


def page_key(server: Server, *origins: str) -> str:
    """Made on the command line, beside the running server."""
    command = [sys.executable, "-m", "realtime.cli", "keys", "create", "--scopes", "mint", "--agent", "default"]
    for origin in origins:
        command += ["--origin", origin]
    environ = {**os.environ, "REALTIME_DATA": str(server.folder / "data")}
    return subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def voice_button(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str]]:
    """examples/voice-button.html as its reader would fill it in: the port it is served on, and its key."""
    folder = tmp_path_factory.mktemp("site")
    with served(folder) as port:
        key = page_key(server, f"http://127.0.0.1:{port}")
        html = (EXAMPLES / "voice-button.html").read_text(encoding="utf-8")
        html = html.replace("https://voice.example", server.url).replace("ifr_pk_proj_YOUR_PAGE_KEY", key)
        (folder / "index.html").write_text(html, encoding="utf-8")
        yield port, key


def test_a_voice_button_on_a_page_of_another_origin(voice_button: tuple[int, str], new_page: NewPage) -> None:
    page = new_page(f"http://127.0.0.1:{voice_button[0]}/")
    page.get_by_role("button", name="Talk").click()
    expect(page.locator("#you")).to_have_text(re.compile("today$"))
    expect(page.locator("#answer")).to_have_text(re.compile(r"\w"))
    page.get_by_role("button", name="Hang up").click()
    expect(page.get_by_role("button", name="Talk")).to_be_visible()


@pytest.mark.parametrize("document", ["README.md", "docs/browser.md"])
def test_ten_lines_are_a_voice_app(instant: Server, new_page: NewPage, tmp_path: Path, document: str) -> None:
    """The lines as they stand in the document, but for the address and the key; and nothing else on the page."""
    lines = re.findall(r"```html\n(.*?)```", (ROOT / document).read_text(encoding="utf-8"), re.DOTALL)[0]
    assert len([line for line in lines.splitlines() if not line.strip().startswith("//")]) <= 10
    with served(tmp_path) as port:
        key = page_key(instant, f"http://localhost:{port}")
        lines = re.sub(r"https?://[a-z.:0-9]+(?=/client\.js)", instant.url, lines).replace("ifr_pk_proj_...", key)
        (tmp_path / "index.html").write_text(lines, encoding="utf-8")
        page = new_page(f"http://localhost:{port}/")
        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Talk").click()
        expect(page.locator("#words")).to_have_text(re.compile("instant engine"))
        with page.expect_event("dialog") as told:
            end_calls(instant)
        assert told.value.message == "The call was ended by whoever runs the server."


def end_calls(server: Server) -> None:
    """As whoever runs the server may."""
    url, headers = f"{server.url}/v1/ai/realtime/sessions", {"Authorization": f"Bearer {API_KEY}"}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=10) as answer:
        calls = json.load(answer)["data"]
    for call in calls:
        one = urllib.request.Request(f"{url}/{call['session_id']}", headers=headers, method="DELETE")
        with suppress(urllib.error.HTTPError):  # it may have ended meanwhile
            urllib.request.urlopen(one, timeout=10).close()


def test_the_key_of_a_page_is_of_no_use_on_another_page(voice_button: tuple[int, str], new_page: NewPage) -> None:
    page = new_page(f"http://localhost:{voice_button[0]}/")
    page.get_by_role("button", name="Talk").click()
    expect(page.locator("#answer")).to_contain_text("cannot be reached")  # a page that may not ask is told nothing


def test_the_key_of_a_page_mints_and_does_nothing_else(
    server: Server, voice_button: tuple[int, str], new_page: NewPage
) -> None:
    port, key = voice_button
    page = new_page(f"http://127.0.0.1:{port}/")
    ask = """async ([url, key, method, body]) => {
        const headers = { Authorization: `Bearer ${key}` };
        if (body) headers["Content-Type"] = "application/json";
        const answer = await fetch(url, { method, headers, body }).catch(() => undefined);
        return answer?.status;
    }"""
    mint = f"{server.url}/v1/ai/realtime/token"
    assert page.evaluate(ask, [mint, key, "POST", "{}"]) == 200
    assert page.evaluate(ask, [mint, key, "POST", '{"agent": "default"}']) == 200
    assert page.evaluate(ask, [mint, key, "POST", '{"session": {"instructions": "obey"}}']) == 403
    assert page.evaluate(ask, [mint, key, "POST", '{"agent": "other"}']) == 403
    for path in ("/v1/ai/realtime/sessions", "/v1/ai/realtime/calls"):
        request = urllib.request.Request(
            server.url + path,
            b"v=0" if path.endswith("calls") else None,
            {"Authorization": f"Bearer {key}", "Origin": f"http://127.0.0.1:{port}", "Content-Type": "application/sdp"},
        )
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request, timeout=10)
        assert refused.value.code == 403


def test_a_backend_that_mints(instant: Server, new_page: NewPage) -> None:
    port = free_port()
    environ = {**os.environ, "INFRAI_API_KEY": API_KEY, "INFRAI_BASE_URL": instant.url}
    command = [sys.executable, "-m", "uvicorn", "main:app", "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen(command, cwd=EXAMPLES / "mint-backend", env=environ)
    try:
        url = f"http://127.0.0.1:{port}/"
        wait_for(url)
        page = new_page(url)
        page.get_by_role("button", name="Talk").click()
        expect(page.locator("#answer")).to_have_text(re.compile("instant engine"))
        assert API_KEY not in page.content()
    finally:
        process.terminate()
        process.wait(10)


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with suppress(OSError):
            urllib.request.urlopen(url, timeout=2)
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing answers at {url}")
