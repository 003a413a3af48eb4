"""The files as browsers get them: right types, strict headers, revalidated, nothing but what is meant."""

from __future__ import annotations

import re

import pytest

from realtime.web.files import load
from tests.realtime.web.conftest import Browser


@pytest.mark.parametrize(
    ("path", "media_type"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/client.js", "text/javascript; charset=utf-8"),
        ("/client/call.js", "text/javascript; charset=utf-8"),
        ("/client.d.ts", "application/typescript; charset=utf-8"),
        ("/page/page.css", "text/css; charset=utf-8"),
        ("/page/icon.svg", "image/svg+xml"),
    ],
)
def test_each_kind_is_served_as_what_it_is(browser: Browser, path: str, media_type: str) -> None:
    answer = browser().get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == media_type
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["permissions-policy"].startswith("microphone=(self)")


def test_the_page_runs_its_own_scripts_only_and_in_no_frame(browser: Browser) -> None:
    policy = browser().get("/").headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r"<script(?![^>]* src=)|<style| on[a-z]+=|style=", browser().get("/").text)


def test_nothing_in_the_page_comes_from_elsewhere() -> None:
    for file in load():
        loaded = re.findall(r"""(?:src|href|import|from|url)\s*[=(]?\s*["'(](https?:[^"')]+)""", file.body.decode())
        assert [url for url in loaded if "your-server" not in url] == [], file.path


def test_the_client_may_be_imported_by_any_page_and_the_page_by_none(browser: Browser) -> None:
    client = browser().get("/client.js", headers={"Origin": "https://app.example"})
    assert client.headers["access-control-allow-origin"] == "*"
    assert client.headers["cross-origin-resource-policy"] == "cross-origin"
    page = browser().get("/page/page.js", headers={"Origin": "https://app.example"})
    assert "access-control-allow-origin" not in page.headers
    assert page.headers["cross-origin-resource-policy"] == "same-origin"


def test_what_has_not_changed_is_not_sent_again(browser: Browser) -> None:
    first = browser().get("/client.js")
    assert first.headers["cache-control"] == "no-cache"
    again = browser().get("/client.js", headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    other = browser().get("/client.js", headers={"If-None-Match": '"other"'})
    assert other.content == first.content


def test_files_for_npm_and_whatever_lies_beside_are_not_served(browser: Browser) -> None:
    for path in ("/package.json", "/README.md", "/page/", "/client/", "/client/../package.json", "/page/%2e%2e/app.py"):
        assert browser().get(path).status_code == 404
    assert browser().head("/").status_code == 200
    assert browser().post("/").status_code == 405


def test_the_documentation_of_the_api_loads_nothing_from_elsewhere(browser: Browser) -> None:
    page = browser().get("/docs")
    assert page.status_code == 200
    assert "https:" not in page.text
    parts = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(parts) == 4
    for part in parts:
        answer = browser().get(f"/{part}")
        assert answer.status_code == 200, part
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "connect-src 'self';" in policy
    assert "http" not in policy
    assert browser().get("/redoc").status_code == 404
