"""The page `/docs`: it shows every endpoint, breaks no rule that it was sent, and asks nobody but its server."""

from __future__ import annotations

import pytest

from tests.calls.server import Server
from tests.web.conftest import NewPage

sync_api = pytest.importorskip("playwright.sync_api")


def test_every_endpoint_is_shown_without_another_server(instant: Server, new_page: NewPage) -> None:
    page = new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.goto(f"{instant.url}/docs")
    chat = page.locator("#operations-ai-chat")
    chat.wait_for()
    chat.click()
    chat.get_by_text("Tell me").first.wait_for()
    assert page.locator(".opblock").count() > 10
    assert [url for url in asked if not url.startswith((f"{instant.url}/", "data:"))] == []
    assert complaints == []
