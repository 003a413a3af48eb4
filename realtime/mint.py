"""What `realtime token` does: a token from the running server, or signed here with the data folder's keys.

Signing here is for scripts that run before the server does; the token then opens a call on any server
of the same data folder.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2

from realtime.settings import Settings
from token_service.keys import SigningKeys
from token_service.tokens import Tokens

PATH = "/v1/ai/realtime/token"
SECONDS = 10.0


class MintError(Exception):
    """No token; the message says why. `reached` is False when no server answered at all."""

    def __init__(self, message: str, *, reached: bool = True) -> None:
        super().__init__(message)
        self.reached = reached


def from_server(url: str, key: str, wish: Mapping[str, object]) -> dict[str, Any]:
    """What the server at `url` answers to a token request. Raises `MintError`."""
    try:
        answer = httpx2.post(
            url.rstrip("/") + PATH, json=dict(wish), headers={"Authorization": f"Bearer {key}"}, timeout=SECONDS
        )
        body = answer.json()
    except (httpx2.TransportError, httpx2.InvalidURL) as error:
        raise MintError(f"no server answers at {url}: {error or type(error).__name__}", reached=False) from None
    except ValueError:
        raise MintError(f"what answers at {url} is not this server") from None
    if not isinstance(body, dict) or not answer.is_success:
        error_body = body.get("error") if isinstance(body, dict) else None
        message = error_body.get("message") if isinstance(error_body, dict) else None
        raise MintError(f"{url} refuses ({answer.status_code}): {message or answer.reason_phrase}")
    return body


def from_folder(settings: Settings, folder: Path, *, agent: str | None, ttl_seconds: int | None) -> dict[str, Any]:
    """The same answer, signed here. Raises `MintError`, and `KeyFileError` for a damaged key file."""
    name = agent or "default"
    if settings.agent(name) is None:
        known = ", ".join(sorted({"default", *settings.agents}))
        raise MintError(f"there is no agent called {name}; there are: {known}")
    tokens = Tokens(SigningKeys.load_or_create(folder), settings.token.issuer, settings.token.audience)
    ttl = settings.token.ttl_seconds if ttl_seconds is None else ttl_seconds
    token, claims = tokens.mint(subject="command_line", agent=name, ttl_seconds=ttl)
    return {
        "session_id": claims.session_id,
        "token": token,
        "ice_servers": settings.ice.config().for_session(claims.session_id, ttl, time.time()),
        "expires_at": claims.expires_at,
        "agent": claims.agent,
        "model": None,
        "voice": None,
    }
