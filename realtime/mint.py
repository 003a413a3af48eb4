"""What `realtime token` does: a token from the running server, or signed here with the data folder's keys.

Signing here is for scripts that run before the server does; the token then opens a call on any server
of the same data folder.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx2

from realtime.local import local_url
from realtime.settings import Settings
from token_service.keys import SigningKeys
from token_service.tokens import Tokens

PATH = "/v1/ai/realtime/token"
SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Wish:
    """What the token is to allow; None leaves it to the server."""

    agent: str | None = None
    model: str | None = None
    voice: str | None = None
    ttl_seconds: int | None = None


class MintError(Exception):
    """No token; the message says why. `reached` is False when no server answered at all."""

    def __init__(self, message: str, *, reached: bool = True) -> None:
        super().__init__(message)
        self.reached = reached


def mint(
    settings: Settings, folder: Path, wish: Wish, *, url: str | None, key: str | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """A token from the server, else signed here when the settings' own server is not running. `url`: where the
    server is when that is not what the settings say; then only it is asked. Raises `MintError`, `KeyFileError`."""
    if url is not None and key is None:
        raise MintError("no API key: give --key, or set INFRAI_API_KEY")
    if key is not None:
        try:
            return from_server(url or local_url(settings.server.host, settings.server.port), key, wish)
        except MintError as error:
            if error.reached or url is not None:
                raise
            say(f"{error}; signing here instead")
    return from_folder(settings, folder, wish)


def from_server(url: str, key: str, wish: Wish) -> dict[str, Any]:
    """What the server at `url` answers to a token request. Raises `MintError`."""
    fields = {name: value for name, value in asdict(wish).items() if value is not None}
    try:
        answer = httpx2.post(
            url.rstrip("/") + PATH, json=fields, headers={"Authorization": f"Bearer {key}"}, timeout=SECONDS
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


def from_folder(settings: Settings, folder: Path, wish: Wish) -> dict[str, Any]:
    """The same answer, signed here. Raises `MintError`, and `KeyFileError` for a damaged key file."""
    if wish.model or wish.voice:
        raise MintError("a model and a voice need the running server, which knows its engines")
    name = wish.agent or "default"
    if settings.agent(name) is None:
        known = ", ".join(sorted({"default", *settings.agents}))
        raise MintError(f"there is no agent called {name}; there are: {known}")
    tokens = Tokens(SigningKeys.load_or_create(folder), settings.token.issuer, settings.token.audience)
    ttl = settings.token.ttl_seconds if wish.ttl_seconds is None else wish.ttl_seconds
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
