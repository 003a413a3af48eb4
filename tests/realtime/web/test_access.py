"""Who may use the page: this machine, and whoever opens a link, once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from realtime.app import create_app
from realtime.local import open_store
from realtime.settings import ServerSettings, Settings
from realtime.web import access
from tests.realtime.web.conftest import Browser

ELSEWHERE = {"address": "203.0.113.7", "url": "http://voice.example"}


def may_call(client: object) -> bool:
    """What the page is told, and that asking for a token comes to the same."""
    told = client.get("/page/session").json()["access"]
    status = client.post("/page/token", json={}).status_code
    assert status == (200 if told else 403)
    return bool(told)


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080"),
        ("127.0.0.1", "http://localhost:8080"),
        ("::1", "http://[::1]:8080"),
        ("127.0.0.1", "https://localhost"),
    ],
)
def test_this_machine_may_call(browser: Browser, address: str, url: str) -> None:
    assert may_call(browser(address, url))


@pytest.mark.parametrize(
    ("address", "url", "headers"),
    [
        ("192.168.1.9", "http://192.168.1.5:8080", {}),
        ("192.168.1.9", "http://localhost:8080", {}),
        ("127.0.0.1", "http://rebound.example:8080", {}),
        ("127.0.0.1", "http://localhost.example:8080", {}),
        ("127.0.0.1", "http://localhost:8080", {"x_forwarded_for": "203.0.113.7"}),
        ("127.0.0.1", "http://localhost:8080", {"x_forwarded_proto": "https"}),
        ("127.0.0.1", "http://localhost:8080", {"forwarded": "for=203.0.113.7"}),
        ("127.0.0.1", "http://localhost:8080", {"x_real_ip": "203.0.113.7"}),
        ("127.0.0.1", "http://localhost:8080", {"via": "1.1 proxy"}),
        ("127.0.0.1", "http://localhost:8080", {"sec_fetch_site": "cross-site"}),
        ("127.0.0.1", "http://localhost:8080", {"sec_fetch_site": "same-site"}),
        ("127.0.0.1", "http://localhost:8080", {"origin": "https://evil.example"}),
    ],
)
def test_others_may_not_without_a_link(browser: Browser, address: str, url: str, headers: dict[str, str]) -> None:
    assert not may_call(browser(address, url, **headers))


def test_what_there_is_to_choose_is_told_only_to_who_may_call(browser: Browser) -> None:
    assert browser(**ELSEWHERE).get("/page/session").json() == {"access": False}
    assert "default" in browser().get("/page/session").json()["agents"]


def test_a_proxy_in_front_closes_the_way_without_a_link(folder: Path) -> None:
    from starlette.testclient import TestClient

    settings = Settings(server=ServerSettings(data=folder, public_url="https://voice.example"))
    client = TestClient(create_app(settings, engines="instant"), base_url="http://localhost", client=("127.0.0.1", 1))
    assert not may_call(client)


def test_without_a_development_key_this_machine_needs_a_link_too(folder: Path, browser: Browser) -> None:
    (folder / "development_key").unlink()
    assert not may_call(browser())


def make_link(folder: Path, url: str | None = "http://voice.example/") -> str | None:
    async def make() -> str | None:
        store = open_store(folder)
        try:
            return await access.new_link(store, url)
        finally:
            await store.close()

    return asyncio.run(make())


def test_a_link_opens_the_page_in_one_browser_once(folder: Path, browser: Browser) -> None:
    link = make_link(folder)
    assert link is not None
    address, _, secret = link.partition("#link=")
    assert address == "http://voice.example/"
    visitor, thief = browser(**ELSEWHERE), browser(**ELSEWHERE)
    answer = visitor.post("/page/link", json={"secret": secret})
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"].lower()
    assert all(part in cookie for part in ("httponly", "samesite=strict", "path=/page", "max-age=43200"))
    assert "secure" not in cookie
    assert secret not in cookie
    assert may_call(visitor)
    refused = thief.post("/page/link", json={"secret": secret})
    assert refused.status_code == 403
    assert refused.json()["error"]["code"] == "link_not_valid"
    assert not may_call(thief)


def test_over_tls_the_cookie_stays_on_tls(folder: Path, browser: Browser) -> None:
    link = make_link(folder)
    assert link is not None
    visitor = browser("203.0.113.7", "https://voice.example")
    answer = visitor.post("/page/link", json={"secret": link.partition("#link=")[2]})
    assert "secure" in answer.headers["set-cookie"].lower()


def test_the_server_remembers_where_links_lead(folder: Path) -> None:
    assert make_link(folder, None) is None

    async def announce() -> None:
        store = open_store(folder)
        await access.remember_address(store, "https://192.168.1.5:8080")
        await store.close()

    asyncio.run(announce())
    link = make_link(folder, None)
    assert link is not None
    assert link.startswith("https://192.168.1.5:8080/#link=")


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b'{"secret": "wrong"}', "application/json", 403),
        (b'{"secret": ""}', "application/json", 403),
        (b'{"secret": "' + b"x" * 500 + b'"}', "application/json", 403),
        (b'{"secret": 1}', "application/json", 422),
        (b"[]", "application/json", 422),
        (b"{", "application/json", 422),
        (b'{"secret": "' + b"x" * 2000 + b'"}', "application/json", 413),
        (b'{"secret": "wrong"}', "text/plain", 403),
    ],
)
def test_hostile_links_come_to_nothing(browser: Browser, content: bytes, kind: str, status: int) -> None:
    answer = browser(**ELSEWHERE).post("/page/link", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert "set-cookie" not in answer.headers


def test_a_page_of_another_site_cannot_spend_tokens_from_a_local_browser(browser: Browser) -> None:
    """A form or a `fetch` without preflight reaches the server, and gets nothing."""
    answer = browser().post("/page/token", content=b"{}", headers={"Content-Type": "text/plain"})
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "page_only"
    assert "access-control-allow-origin" not in answer.headers


def test_a_cookie_of_nobody_opens_nothing(browser: Browser) -> None:
    visitor = browser(**ELSEWHERE)
    for value in ("", "x", "x" * 5000):
        visitor.cookies.set(access.COOKIE, value)
        assert not may_call(visitor)
