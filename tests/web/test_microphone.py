"""The microphone: really refused, really absent, chosen in the middle of a call, unplugged and plugged in again."""

from __future__ import annotations

import re
import time

import pytest

from tests.calls.server import Server
from tests.web.conftest import FLAGS, NewPage, chromium
from tests.web.test_page import AUDIBLE, LIVE, loudest
from tests.web.test_problems import NO_UDP

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

RECORD = """
    const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
    window.tracks = [];
    window.unplugged = false;
    navigator.mediaDevices.getUserMedia = async (wish) => {
        if (window.unplugged) throw new DOMException("none", "NotFoundError");
        const stream = await open(wish);
        window.tracks.push(...stream.getAudioTracks());
        return stream;
    };"""
"""Keeps the tracks of the microphone, and pulls its plug when told to."""
HAS_MICROPHONE = """async () =>
    (await navigator.mediaDevices.enumerateDevices()).some(({ kind }) => kind === "audioinput")"""


@pytest.mark.parametrize(
    ("left_out", "permissions", "title"),
    [
        pytest.param("--use-fake-ui-for-media-stream", [], "The microphone is not allowed", id="refused"),
        pytest.param("--use-fake-device-for-media-stream", ["microphone"], "No microphone found", id="absent"),
    ],
)
def test_without_a_microphone_the_page_says_so(
    browser: sync_api.Browser, instant: Server, left_out: str, permissions: list[str], title: str
) -> None:
    """By the browser's own judgement: a permission that is denied, a machine that has no microphone."""
    flags = [flag for flag in FLAGS if flag != left_out]
    with browser.browser_type.launch(executable_path=chromium(), args=flags) as other:
        context = other.new_context()
        context.grant_permissions(permissions, origin=instant.url)  # and the others are denied
        page = context.new_page()
        page.goto(instant.url)
        if permissions and page.evaluate(HAS_MICROPHONE):
            pytest.skip("this machine has a microphone")
        page.click("#talk")
        expect(page.get_by_role("alert")).to_contain_text(title)
        page.get_by_role("button", name="Type instead").click()
        page.wait_for_selector(LIVE)


def until(page: sync_api.Page, condition: str) -> None:
    """`wait_for_function` evaluates inside the page, which the page's content-security policy forbids."""
    deadline = time.monotonic() + 10
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


def choose_second_microphone(page: sync_api.Page) -> str:
    """The deviceId of what was chosen. The fake microphone begins its recording anew."""
    page.get_by_text("Agent, voice, devices").click()
    options = page.get_by_label("Microphone").locator("option")
    expect(options).not_to_have_count(1)
    device = options.last.get_attribute("value")
    assert device
    page.get_by_label("Microphone").select_option(device)
    return device


def test_a_microphone_chosen_in_mid_call_is_heard(instant: Server, new_page: NewPage) -> None:
    page = new_page(instant.url, script=RECORD)
    page.click("#talk")
    page.wait_for_selector(LIVE)
    device = choose_second_microphone(page)
    until(page, "tracks.length === 2 && tracks[0].readyState === 'ended'")
    assert page.evaluate("[tracks[1].readyState, tracks[1].getSettings().deviceId]") == ["live", device]
    page.wait_for_selector("body[data-activity=hearing]")
    page.wait_for_selector("body[data-activity=speaking]")
    expect(page.locator("#words .trouble")).to_have_count(0)


def test_a_microphone_that_is_unplugged_is_asked_for_until_it_is_back(instant: Server, new_page: NewPage) -> None:
    """The call goes on meanwhile, and what was said with the muted button holds for the microphone that comes."""
    page = new_page(instant.url, script=RECORD)
    page.click("#talk")
    page.wait_for_selector(LIVE)
    choose_second_microphone(page)
    until(page, "tracks.length === 2")
    changed = "navigator.mediaDevices.dispatchEvent(new Event('devicechange'))"
    page.evaluate(f"unplugged = true; tracks[1].stop(); {changed}")
    expect(page.locator("#words .trouble")).to_have_text("The microphone is gone. Plug one in, or type.")
    page.click("#mute")
    page.evaluate(f"unplugged = false; {changed}")
    until(page, "tracks.length === 3")
    assert page.evaluate("[tracks[2].readyState, tracks[2].enabled]") == ["live", False]
    page.click("#mute")
    page.wait_for_selector("body[data-activity=hearing]")
    expect(page.locator("body")).to_have_attribute("data-state", "live")


def test_over_a_websocket_the_answer_is_stopped_by_voice(instant: Server, new_page: NewPage) -> None:
    """And by a microphone that was chosen in that call."""
    page = new_page(instant.url, script=NO_UDP)
    page.click("#talk")
    page.wait_for_selector(LIVE)
    expect(page.locator("#facts")).to_contain_text("websocket")
    choose_second_microphone(page)
    page.wait_for_selector("body[data-activity=hearing]")
    page.wait_for_selector("body[data-activity=speaking]")
    assert loudest(page, 400) > AUDIBLE
    page.wait_for_selector("body[data-activity=hearing]")
    page.wait_for_timeout(100)  # the fade, and what the page's meter still holds
    assert loudest(page, 300) == 0
    answer = page.locator("#words .assistant").filter(has=page.locator("s")).first
    expect(answer.locator("s")).to_have_text(re.compile(r"\w"))
