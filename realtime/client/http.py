"""The few HTTP requests a live call needs: a token, the offer, hanging up."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from realtime.client.errors import ApiError, ConnectError

DEFAULT_BASE_URL = "http://127.0.0.1:8080"
TIMEOUT_S = 20.0
"""Longer than the server's own negotiation limit, so that its answer wins."""


def base_url_from(given: str | None) -> str:
    return (given or os.environ.get("INFRAI_BASE_URL") or DEFAULT_BASE_URL).rstrip("/")


def api_key_from(given: str | None) -> str:
    """The argument, `INFRAI_API_KEY`, or the development key of a server on this machine. Raises `ConnectError`."""
    key = given or os.environ.get("INFRAI_API_KEY") or os.environ.get("REALTIME_API_KEY") or _development_key()
    if not key:
        raise ConnectError("no API key: set INFRAI_API_KEY, or start the server here once with `realtime serve`")
    return key


def _development_key() -> str | None:
    import platformdirs

    folder = os.environ.get("REALTIME_DATA") or platformdirs.user_data_dir("infrai-realtime", appauthor=False)
    try:
        return (Path(folder) / "development_key").read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None


@dataclass(frozen=True, slots=True)
class Answer:
    """`location`: the call's own URL."""

    sdp: str
    location: str


class Http:
    """An HTTP connection to the server. `credential`: API key or token."""

    def __init__(self, base_url: str) -> None:
        import httpx2

        self._client = httpx2.AsyncClient(base_url=base_url, timeout=TIMEOUT_S)
        self._failure = httpx2.HTTPError
        self._base_url = base_url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def mint(self, api_key: str, wish: Mapping[str, Any]) -> dict[str, Any]:
        """`POST /v1/ai/realtime/token`."""
        response = await self._request("POST", "/v1/ai/realtime/token", api_key, json=wish)
        return dict(response.json())

    async def offer(self, credential: str, sdp: str) -> Answer:
        headers = {"Content-Type": "application/sdp"}
        response = await self._request("POST", "/v1/ai/realtime/calls", credential, content=sdp, headers=headers)
        return Answer(response.text, response.headers["location"])

    async def hang_up(self, credential: str, location: str) -> None:
        await self._request("DELETE", location, credential)

    async def _request(
        self, method: str, path: str, credential: str, *, headers: Mapping[str, str] | None = None, **body: Any
    ) -> Any:
        headers = {"Authorization": f"Bearer {credential}", **(headers or {})}
        try:
            response = await self._client.request(method, path, headers=headers, **body)
        except self._failure as error:
            raise ConnectError(f"{self._base_url} cannot be reached: {error or type(error).__name__}") from error
        if response.is_success:
            return response
        try:
            problem = response.json()["error"]
            code, message = str(problem["code"]), str(problem["message"])
        except (ValueError, KeyError, TypeError):
            code, message = "http_error", response.text[:200]
        raise ApiError(response.status_code, code, message, response.headers.get("x-request-id"))
