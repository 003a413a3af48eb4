"""Whatever can go wrong says plainly what to do."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.calls.server import API_KEY, ROOT, Server
from tests.web.conftest import NewPage
from tests.web.test_page import AUDIBLE, loudest

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

LIVE = "body[data-state=live]"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Takes one call."""
    with Server(tmp_path_factory.mktemp("small"), "--engines", "instant", config="[limits]\ncalls = 1\n") as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def cut_off(
    browser: sync_api.Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[sync_api.Page, contextlib.ExitStack]]:
    """A call whose server is frozen, which to the browser is a network that went away, and what thaws it.

    It takes ten seconds and more until a browser gives up, so this begins before all other tests.
    """
    with Server(tmp_path_factory.mktemp("frozen"), "--engines", "instant") as server:
        context = browser.new_context()
        page = context.new_page()
        page.goto(server.url)
        page.click("#talk")
        page.wait_for_selector(f"{LIVE}, #problem:not([hidden])")
        assert page.locator("#problem").is_hidden(), f"{page.inner_text('#problem')}\n{server.log()}"
        with contextlib.ExitStack() as thaw:
            thaw.enter_context(frozen(server.pid))
            yield page, thaw
        context.close()


def refusing(name: str) -> str:
    """A browser whose microphone fails like this."""
    return f"navigator.mediaDevices.getUserMedia = async () => {{ throw new DOMException('no', '{name}'); }};"


@pytest.mark.parametrize(
    ("name", "title", "advice"),
    [
        ("NotAllowedError", "The microphone is not allowed", "allow the microphone"),
        ("NotFoundError", "No microphone found", "Plug one in"),
        ("NotReadableError", "The microphone does not start", "Close other programs"),
    ],
)
def test_without_a_microphone_one_can_type(
    instant: Server, new_page: NewPage, name: str, title: str, advice: str
) -> None:
    page = new_page(instant.url, script=refusing(name))
    page.click("#talk")
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text(title)
    expect(problem).to_contain_text(advice)
    page.get_by_role("button", name="Type instead").click()
    page.wait_for_selector(LIVE)
    expect(problem).to_be_hidden()
    expect(page.get_by_label("Type instead of speaking")).to_be_focused()
    page.keyboard.type("hello")
    page.keyboard.press("Enter")
    expect(page.locator("#words .assistant")).to_be_visible()


def test_a_full_server_says_when_to_try_again(small: Server, new_page: NewPage) -> None:
    first, second = new_page(small.url), new_page(small.url)
    first.click("#talk")
    first.wait_for_selector(LIVE)
    second.click("#talk")
    problem = second.get_by_role("alert")
    expect(problem).to_contain_text("All lines are busy")
    expect(problem).to_contain_text("The server says: in")
    first.click("#talk")
    expect(first.locator("#status")).to_have_text("Press to call again")
    second.get_by_role("button", name="Try again").click()
    second.wait_for_selector(LIVE)
    second.click("#talk")
    expect(second.locator("#status")).to_have_text("Press to call again")


NO_UDP = """
    const set = RTCPeerConnection.prototype.setRemoteDescription;
    RTCPeerConnection.prototype.setRemoteDescription = function ({ type, sdp }) {
        return set.call(this, { type, sdp: sdp.replace(/a=candidate.*\\r\\n/g, "") });
    };
    const send = window.fetch;
    window.fetch = (url, options) =>
        options?.method === "PATCH" ? Promise.reject(new TypeError("blocked")) : send(url, options);
"""
"""The answer's candidates are taken away, and the server learns none: as when a firewall lets no UDP through."""
NO_WEBSOCKET = "WebSocket = class extends WebSocket { constructor() { super('ws://127.0.0.1:1/'); } };"


def test_without_udp_the_call_is_held_over_a_websocket(instant: Server, new_page: NewPage) -> None:
    """Spoken to, heard, and talked over, as ever."""
    page = new_page(instant.url, script=NO_UDP)
    began = time.monotonic()
    page.click("#talk")
    page.wait_for_selector(LIVE)
    assert time.monotonic() - began < 15
    expect(page.locator("#facts")).to_contain_text("websocket")
    page.wait_for_selector("body[data-activity=hearing]")
    page.wait_for_selector("body[data-activity=speaking]")
    assert loudest(page, 500) > AUDIBLE
    page.get_by_label("Type instead of speaking").fill("Stop")
    page.keyboard.press("Enter")
    expect(page.locator("#words .assistant s").first).to_have_text(re.compile(r"\w"))
    expect(page.locator("#words .assistant")).to_have_count(2)
    page.click("#talk")
    expect(page.locator("#words .note").last).to_have_text("You hung up.")


def test_when_nothing_gets_through_that_is_said_within_seconds(instant: Server, new_page: NewPage) -> None:
    page = new_page(instant.url, script=NO_UDP + NO_WEBSOCKET)
    page.click("#talk")
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("Sound cannot get through", timeout=20_000)
    expect(problem).to_contain_text("UDP")
    expect(page.get_by_role("button", name="Talk")).to_be_visible()


def test_a_server_that_stops_says_goodbye_and_is_called_again(small: Server, new_page: NewPage) -> None:
    wait_until_empty(small)
    page = new_page(small.url)
    page.click("#talk")
    page.wait_for_selector(LIVE)
    small.__exit__()
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("The server is being stopped")
    page.get_by_role("button", name="Call again").click()
    expect(problem).to_contain_text("The server does not answer")
    small.__enter__()
    page.get_by_role("button", name="Try again").click()
    page.wait_for_selector(LIVE)
    expect(problem).to_be_hidden()


@pytest.mark.parametrize("script", [pytest.param("", id="webrtc"), pytest.param(NO_UDP, id="websocket")])
def test_a_server_that_is_killed_is_a_lost_connection(tmp_path: Path, new_page: NewPage, script: str) -> None:
    """Nobody could announce it: the page says what it knows, and a call to the server that is back works."""
    with Server(tmp_path, "--engines", "instant") as server:
        page = new_page(server.url, script=script)
        page.click("#talk")
        page.wait_for_selector(LIVE)
        os.kill(server.pid, signal.SIGKILL)
        problem = page.get_by_role("alert")
        expect(problem).to_contain_text("The connection was lost", timeout=45_000)
        expect(page.locator("#words .note").last).to_contain_text("The connection was lost")
        server.__exit__()
        server.__enter__()
        page.get_by_role("button", name="Reconnect").click()
        page.wait_for_selector(LIVE)


def wait_until_empty(server: Server) -> None:
    """The calls of pages that were closed are over."""
    deadline = time.monotonic() + 20
    while json.load(urllib.request.urlopen(f"{server.url}/v1/ai/status"))["calls"]["active"]:
        assert time.monotonic() < deadline, "a call whose page is gone goes on"
        time.sleep(0.05)


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    subprocess.run(["kill", f"-{signal.SIGSTOP.value}", str(pid)], check=True)
    try:
        yield
    finally:
        subprocess.run(["kill", f"-{signal.SIGCONT.value}", str(pid)], check=True)


def test_from_elsewhere_the_page_needs_a_link_and_the_microphone_needs_https(
    instant: Server, new_page: NewPage
) -> None:
    """`voice.test` leads to the server, but is no name of this machine: as from another device, without TLS."""
    url = instant.url.replace("127.0.0.1", "voice.test")
    page = new_page(url)
    problem = page.get_by_role("alert")
    expect(problem).to_contain_text("This page needs a link")
    link = printed_link(instant, url)
    page.goto(link)
    expect(problem).to_contain_text("No microphone at this address")
    expect(problem).to_contain_text("--tls self-signed")
    assert "link=" not in page.url
    page.click("#talk")
    expect(problem).to_contain_text("No microphone at this address")
    page.get_by_role("button", name="Type instead").click()
    page.wait_for_selector(LIVE)

    other = new_page(link)
    expect(other.get_by_role("alert")).to_contain_text("This link does not work any more")


def printed_link(server: Server, url: str) -> str:
    command = [sys.executable, "-m", "realtime.cli", "link", "--url", url]
    environ = {"REALTIME_DATA": str(server.folder / "data")}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_wrong_key_is_said_to_be_wrong(instant: Server, new_page: NewPage) -> None:
    page = new_page(instant.url.replace("127.0.0.1", "voice.test"))
    page.get_by_role("button", name="Use an API key").click()
    page.keyboard.type("ifr_pk_proj_wrong")
    page.keyboard.press("Enter")
    page.get_by_label("Type instead of speaking").fill("hello")
    page.get_by_role("button", name="Send").click()
    expect(page.get_by_role("alert")).to_contain_text("The key was not accepted")


def test_sound_that_the_browser_holds_back_asks_for_a_tap(instant: Server, new_page: NewPage) -> None:
    script = """
        window.refuse = true;
        const play = HTMLMediaElement.prototype.play;
        HTMLMediaElement.prototype.play = function () {
            return window.refuse ? Promise.reject(new DOMException("tap first", "NotAllowedError")) : play.call(this);
        };"""
    page = new_page(instant.url, script=script)
    page.click("#talk")
    unlock = page.get_by_role("button", name="Tap to hear the answer")
    expect(unlock).to_be_visible()
    page.evaluate("window.refuse = false")
    unlock.click()
    expect(unlock).to_be_hidden()


def test_a_lost_connection_offers_to_reconnect(cut_off: tuple[sync_api.Page, contextlib.ExitStack]) -> None:
    page, thaw = cut_off
    expect(page.get_by_role("alert")).to_contain_text("The connection was lost", timeout=45_000)
    thaw.close()
    page.get_by_role("button", name="Reconnect").click()
    page.wait_for_selector(LIVE)


def test_a_call_that_is_ended_from_outside_says_so(instant: Server, new_page: NewPage) -> None:
    page = new_page(instant.url)
    page.click("#talk")
    page.wait_for_selector(LIVE)
    page.get_by_text("Events").click()
    details = page.locator("#log-list details").filter(has_text="session.created")
    details.locator("summary").click()
    session_id = json.loads(details.locator("pre").inner_text())["session"]["id"]
    headers = {"Authorization": f"Bearer {API_KEY}"}
    url = f"{instant.url}/v1/ai/realtime/sessions/{session_id}"
    urllib.request.urlopen(urllib.request.Request(url, headers=headers, method="DELETE"), timeout=10)
    expect(page.get_by_role("alert")).to_contain_text("ended by whoever runs the server")
