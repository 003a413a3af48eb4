"""What a proxy says of a request counts only when the proxy is trusted."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from realtime.proxies import TrustedProxies

FORWARDED = {
    "X-Forwarded-For": "198.51.100.7",
    "X-Forwarded-Proto": "https",
    "X-Forwarded-Host": "voice.example:8443",
}


def seen(headers: dict[str, str], *, client: str, trusted: list[str]) -> list[str]:
    async def show(request: Request) -> JSONResponse:
        return JSONResponse([str(request.url), request.client.host if request.client else ""])

    app = TrustedProxies(Starlette(routes=[Route("/", show)]), trusted)
    with TestClient(app, base_url="http://inside:8080", client=(client, 5)) as http:
        answer: list[str] = http.get("/", headers=headers).json()
    return answer


def test_the_public_side_is_seen_behind_a_trusted_proxy():
    assert seen(FORWARDED, client="127.0.0.1", trusted=["127.0.0.1"]) == [
        "https://voice.example:8443/",
        "198.51.100.7",
    ]
    assert seen(FORWARDED, client="10.1.2.3", trusted=["10.0.0.0/8"])[0] == "https://voice.example:8443/"


@pytest.mark.parametrize("client", ["203.0.113.9", "127.0.0.2", "testclient"])
def test_from_anybody_else_the_headers_change_nothing(client: str):
    assert seen(FORWARDED, client=client, trusted=["127.0.0.1", "::1"]) == ["http://inside:8080/", client]


def test_the_last_proxy_s_word_for_the_host_counts_and_a_monstrous_one_does_not():
    chain = FORWARDED | {"X-Forwarded-Host": "forged.example, voice.example"}
    assert seen(chain, client="127.0.0.1", trusted=["127.0.0.1"])[0] == "https://voice.example/"
    long = FORWARDED | {"X-Forwarded-Host": "x" * 300}
    assert seen(long, client="127.0.0.1", trusted=["127.0.0.1"])[0] == "https://inside:8080/"
