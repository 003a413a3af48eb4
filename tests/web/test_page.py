"""The page as a person uses it: speak, hear, talk over it, mute, type, hang up."""

from __future__ import annotations

import re

import pytest

from tests.calls.server import Server
from tests.web.conftest import NewPage

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

LIVE = "body[data-state=live]"
BOT_LEVEL = "Number(document.querySelector('#meter-bot').style.transform.match(/[0-9.]+/)?.[0] ?? 0)"
AUDIBLE = 0.2
"""Of the page's own meter, which is 0 at -60 dBFS and 1 at full scale."""


def loudest(page: sync_api.Page, milliseconds: int) -> float:
    """The loudest that the answer gets on the page's meter within this time."""
    script = f"""async (milliseconds) => {{
        const until = performance.now() + milliseconds;
        let most = 0;
        while (performance.now() < until) {{
            most = Math.max(most, {BOT_LEVEL});
            await new Promise((resolve) => setTimeout(resolve, 10));
        }}
        return most;
    }}"""
    return float(page.evaluate(script, milliseconds))


def test_both_sides_are_heard_and_written_down(server: Server, new_page: NewPage) -> None:
    page = new_page(server.url)
    # Watched from the start: the words may be seen only when the short answer has been heard.
    page.evaluate(f"() => {{ window.loudest = 0; setInterval(() => loudest = Math.max(loudest, {BOT_LEVEL}), 10); }}")
    page.get_by_role("button", name="Talk").click()
    page.wait_for_selector("body[data-activity=hearing]")
    page.wait_for_selector("body:not([data-activity=hearing])")
    page.click("#mute")  # the second words would cut an answer that comes late
    expect(page.locator("#words .user p").first).to_have_text(re.compile("today$"))
    expect(page.locator("#words .assistant p").first).to_have_text(re.compile(r"\w"))
    page.wait_for_function(f"window.loudest > {AUDIBLE}")
    expect(page.locator("#turns .bar").first).to_have_attribute(
        "aria-label", re.compile(r"end of speech noticed \d+ ms")
    )
    page.get_by_role("button", name="Hang up").click()
    expect(page.locator("#words .note").last).to_have_text("You hung up.")
    expect(page.get_by_role("button", name="Talk")).to_be_visible()
    expect(page.locator("#problem")).to_be_hidden()


def test_talking_over_the_answer_stops_it(instant: Server, new_page: NewPage) -> None:
    page = new_page(instant.url)
    page.click("#talk")
    page.wait_for_selector("body[data-activity=speaking]")
    assert loudest(page, 400) > AUDIBLE
    page.wait_for_selector("body[data-activity=hearing]")
    page.wait_for_timeout(300)  # what had been sent is still on its way through the browser's jitter buffer
    assert loudest(page, 500) == 0
    answer = page.locator("#words .assistant").first
    expect(answer.locator("s")).to_have_text(re.compile(r"\w"))
    assert len(answer.locator("span").inner_text()) > 0
    expect(page.locator("#turns li").filter(has_text="cut off in")).to_have_count(1)


def test_muted_words_do_not_get_through(instant: Server, new_page: NewPage) -> None:
    page = new_page(instant.url)
    page.click("#talk")
    page.wait_for_selector(LIVE)
    page.click("#mute")
    expect(page.locator("#mute")).to_have_attribute("aria-pressed", "true")
    expect(page.locator("#status")).to_have_text("You are muted")
    page.wait_for_timeout(3800)  # the first words are over by now, the second ones have not begun
    assert page.locator("#words .user").count() == 0
    page.click("#mute")
    page.wait_for_selector("body[data-activity=hearing]")


def test_typed_text_is_answered_aloud_without_a_microphone(instant: Server, new_page: NewPage) -> None:
    page = new_page(
        instant.url, script="navigator.mediaDevices.getUserMedia = () => { throw new Error('not asked for') };"
    )
    page.get_by_label("Type instead of speaking").fill("Tell me something")
    page.keyboard.press("Enter")
    expect(page.locator("#words .user p")).to_have_text("Tell me something")
    expect(page.locator("#words .assistant p")).to_have_text(re.compile("instant engine"))
    assert loudest(page, 1500) > AUDIBLE
    page.get_by_label("Type instead of speaking").fill("Something else")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("#words .assistant")).to_have_count(2)
    expect(page.locator("#words .assistant s")).to_have_count(1)  # the first answer was cut by it


def test_agent_and_voice_can_be_chosen_and_are_remembered(instant: Server, new_page: NewPage) -> None:
    page = new_page(instant.url)
    page.get_by_text("Agent, voice, devices").click()
    page.get_by_label("Voice").select_option("verse")
    page.reload()
    expect(page.get_by_label("Voice")).to_have_value("verse")
    page.get_by_text("Agent, voice, devices").click()
    page.click("#talk")
    expect(page.locator("#facts")).to_have_text(re.compile("default.*verse"))
    expect(page.get_by_label("Microphone").locator("option")).not_to_have_count(1)
    names = page.get_by_label("Microphone").locator("option").all_inner_texts()
    page.get_by_label("Microphone").select_option(label=names[1])
    expect(page.locator("#problem")).to_be_hidden()
    expect(page.locator("#words .trouble")).to_have_count(0)


def test_a_microphone_that_goes_away_is_replaced(instant: Server, new_page: NewPage) -> None:
    """Speech is heard although the first track has ended before it began."""
    script = """
        const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
        window.tracks = [];
        navigator.mediaDevices.getUserMedia = async (wish) => {
            const stream = await open(wish);
            window.tracks.push(...stream.getAudioTracks());
            return stream;
        };"""
    page = new_page(instant.url, script=script)
    page.click("#talk")
    page.wait_for_selector(LIVE)
    page.evaluate("tracks[0].stop(); tracks[0].dispatchEvent(new Event('ended'))")
    page.wait_for_selector("body[data-activity=hearing]")
    assert page.evaluate("tracks.map((track) => track.readyState).join()") == "ended,live"


def test_every_control_works_from_the_keyboard(instant: Server, new_page: NewPage) -> None:
    page = new_page(instant.url)
    expect(page.locator("#agent option")).to_have_count(1)
    page.keyboard.press("Tab")
    expect(page.locator("#talk")).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_selector(LIVE)
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("m")
    expect(page.locator("#mute")).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("Escape")
    expect(page.locator("body")).to_have_attribute("data-state", "closed")
    page.keyboard.press("Space")
    page.wait_for_selector(LIVE)


def test_events_can_be_opened(instant: Server, new_page: NewPage) -> None:
    page = new_page(instant.url)
    page.click("#talk")
    page.wait_for_selector(LIVE)
    page.get_by_text("Events").click()
    created = page.locator("#log-list details").filter(has_text="session.created")
    created.locator("summary").click()
    expect(created.locator("pre")).to_contain_text('"type": "session.created"')
    expect(page.locator("#log-list .client").first).to_contain_text("session.update")
