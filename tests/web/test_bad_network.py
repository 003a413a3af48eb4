"""A browser's call through the lossy relay: what is said is understood."""

from __future__ import annotations

import asyncio
import re
import threading
import time

import pytest

from tests.calls.caller import without_candidates
from tests.calls.server import Server
from tests.media.lossy import BAD, LossyCable
from tests.media.webrtc import candidates
from tests.web.conftest import PATIENCE_MS, NewPage
from tests.web.test_page import LIVE
from tests.words import word_errors

sync_api = pytest.importorskip("playwright.sync_api")
expect = sync_api.expect

SAID = ("hello how are you today", "what is the weather like in london tomorrow")
ENOUGH = 0.15
KEEP = """
    const Stock = RTCPeerConnection;
    window.RTCPeerConnection = class extends Stock {
        constructor(...options) {
            super(...options);
            window.connection = this;
        }
    };"""
LOST = """async () => [...(await connection.getStats()).values()]
    .filter(({ type }) => type === "remote-inbound-rtp").reduce((sum, { packetsLost }) => sum + packetsLost, 0)"""


class Relay:
    """A `LossyCable` on an event loop of its own: playwright has this thread's."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.cable: LossyCable | None = None
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def offer(self, route: sync_api.Route) -> None:
        """Neither side learns the other's address: all goes through the relay. It is bad as soon as it is there."""
        answer = route.fetch(post_data=without_candidates(route.request.post_data or ""))
        text = answer.text()
        host, port = candidates(text)[0]
        own = asyncio.run_coroutine_threadsafe(self._open(host, port), self.loop).result(5)
        kept = rf"a=candidate:(?!\S+ 1 udp \d+ {re.escape(host)} {port} ).*\r\n"
        text = re.sub(kept, "", text).replace(f" {host} {port} typ", f" {host} {own} typ")
        route.fulfill(response=answer, body=text)

    async def _open(self, host: str, port: int) -> int:
        self.cable = LossyCable((host, port))
        return await self.cable.open(host)

    def worsen(self, seed: int) -> None:
        assert self.cable is not None
        self.loop.call_soon_threadsafe(self.cable.worsen, BAD, seed)

    def close(self) -> None:
        if self.cable is not None:
            self.loop.call_soon_threadsafe(self.cable.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()


def test_a_browsers_words_are_understood_over_a_bad_network(server: Server, new_page: NewPage) -> None:
    """In the median of three calls: which words the losses fall upon is chance, for a browser keeps its own time."""
    pytest.importorskip("pocketsphinx", reason="words need the extra `local`")
    shares: list[float] = []
    while sum(each <= ENOUGH for each in shares) < 2:
        assert sum(each > ENOUGH for each in shares) < 2, shares
        shares.append(misheard(server, new_page, seed=len(shares) + 1))


def misheard(server: Server, new_page: NewPage, seed: int) -> float:
    """Of the words of one call, how many were not understood; soon after they were said."""
    relay = Relay()
    try:
        page = new_page(server.url, script=KEEP)
        page.route(re.compile(r"/realtime/calls$"), relay.offer)
        page.route(re.compile(r"/realtime/calls/.+"), lambda route: route.fulfill(status=204))
        page.click("#talk")
        page.wait_for_selector(LIVE)
        expect(page.locator("#facts")).not_to_contain_text("websocket")
        relay.worsen(seed)
        words = page.locator("#words .user p")
        expect(words).to_have_count(len(SAID))
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while (wrong := share(words.all_inner_texts())) > ENOUGH and time.monotonic() < deadline:
            page.wait_for_timeout(100)  # words are shown while they are still being heard
        assert page.evaluate(LOST) > 0, "by the server's receiver reports nothing was lost"
        page.click("#talk")
        return wrong
    finally:
        relay.close()


def share(heard: list[str]) -> float:
    """Of the words, how many are wrong."""
    errors = sum(word_errors(said, text) for said, text in zip(SAID, heard, strict=True))
    return errors / sum(len(said.split()) for said in SAID)
