"""The page on every screen and for everybody: phones, dark rooms, keyboards, screen readers, still pictures."""

from __future__ import annotations

import re

import pytest

from tests.calls.server import Server
from tests.web.conftest import NewPage

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

LIVE = "body[data-state=live]"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "device_scale_factor": 2}
REFUSING = "navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('no', 'NotAllowedError'); };"


@pytest.mark.parametrize(
    "options",
    [{"color_scheme": "light"}, {"color_scheme": "dark", **PHONE}],
    ids=["light", "dark and small"],
)
def test_axe_finds_nothing_to_complain_of(instant: Server, new_page: NewPage, options: dict[str, object]) -> None:
    """In a call with words cut off, everything opened; and with a problem on the screen."""
    page = new_page(instant.url, bypass_csp=True, **options)
    page.get_by_label("Type instead of speaking").fill("One")
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-activity=speaking]")
    page.get_by_label("Type instead of speaking").fill("Two")
    page.keyboard.press("Enter")
    page.wait_for_selector("#words s")
    page.get_by_text("Agent, voice, devices").click()
    page.get_by_text("Events").click()
    assert violations(page) == []
    refused = new_page(instant.url, bypass_csp=True, script=REFUSING, **options)
    refused.click("#talk")
    refused.wait_for_selector("#problem:not([hidden])")
    assert violations(refused) == []


def violations(page: sync_api.Page) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    report = axe.Axe().run(page).response
    assert len(report["passes"]) > 20, "axe did not look at the page"
    return [f"{one['id']}: {one['help']} at {one['nodes'][0]['html']}" for one in report["violations"]]


def test_a_phone_has_the_button_in_sight_and_nothing_off_the_side(instant: Server, new_page: NewPage) -> None:
    page = new_page(instant.url, **PHONE)
    expect(page.locator("#talk")).to_be_in_viewport(ratio=1)
    page.tap("#talk")
    page.wait_for_selector("body[data-activity=hearing]")
    expect(page.locator("#mute")).to_be_in_viewport(ratio=1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    small = page.evaluate(
        """[...document.querySelectorAll("button, input, select")].filter((one) => one.offsetParent)
        .filter((one) => one.offsetHeight < 44).map((one) => one.id)"""
    )
    assert small == []


def test_screen_readers_are_told_the_state_and_each_finished_line_once(instant: Server, new_page: NewPage) -> None:
    page = new_page(instant.url)
    expect(page.get_by_role("status")).to_have_text("Press and speak")
    page.evaluate(
        """window.told = [];
        new MutationObserver(() => told.push(document.getElementById("said").textContent))
            .observe(document.getElementById("said"), { childList: true });"""
    )
    page.get_by_label("Type instead of speaking").fill("One")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text(re.compile("Speaking"))
    expect(page.locator("#said")).to_have_text(re.compile("^Answer: "))
    told = page.evaluate("told")
    assert told[0] == "You: One"
    assert len(told) == 2


def test_who_wants_no_motion_gets_plain_meters(instant: Server, new_page: NewPage) -> None:
    page = new_page(instant.url, reduced_motion="reduce")
    page.get_by_label("Type instead of speaking").fill("One")
    page.keyboard.press("Enter")
    page.wait_for_selector("body[data-activity=speaking]")
    before = page.evaluate("document.getElementById('ring').toDataURL()")
    expect(page.locator("#meter-bot")).to_have_attribute("style", re.compile(r"scaleX\(0\.[4-9]"))
    assert page.locator("#meter-bot").is_visible()
    assert page.evaluate("document.getElementById('ring').toDataURL()") == before
