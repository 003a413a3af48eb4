"""Which ICE servers a caller's browser gets, with TURN credentials that end soon after the token does.

Credentials follow the TURN REST scheme (draft-uberti-behave-turn-rest, coturn's `use-auth-secret`):
the user name is `EXPIRY:SESSION_ID`, the password an HMAC-SHA1 of it under the secret that the TURN
server shares. An allocation outlives its credentials, so they need to cover only the set-up. What is
wrong in the settings is an `IceConfigError` at start; nothing here fails for a caller. The secret
itself never goes out.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

TURN_SLACK_SECONDS = 60
"""A call may be dialled in the token's last second; gathering candidates and a retry still have to work."""
MAX_URLS = 16
"""Browsers slow down and warn from about five on; this many is a mistake in the settings."""

_HOST = r"(?:[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?"
_STUN = re.compile(rf"stuns?:{_HOST}")
_TURN = re.compile(rf"(?P<scheme>turns?):{_HOST}(?:\?transport=(?P<transport>udp|tcp))?")


class IceConfigError(ValueError):
    """The settings name something that is no ICE server; the message says which and why."""


@dataclass(frozen=True, slots=True)
class IceServer:
    """One server as configured. TURN URLs without credentials get time-limited ones from `turn_secret`."""

    urls: Sequence[str]
    username: str | None = None
    credential: str | None = None


class _Urls(TypedDict):
    urls: list[str]


class IceServerEntry(_Urls, total=False):
    """One entry of `RTCPeerConnection`'s `iceServers`."""

    username: str
    credential: str


@dataclass(frozen=True, slots=True)
class IceConfig:
    """The ICE part of the settings, checked when it is made (`IceConfigError`)."""

    servers: Sequence[IceServer] = ()
    turn_urls: Sequence[str] = ()
    turn_secret: str | None = None

    def __post_init__(self) -> None:
        check_ice(self.servers, self.turn_urls, self.turn_secret)

    def for_session(self, session_id: str, ttl_seconds: int, now: float) -> list[IceServerEntry]:
        return ice_servers(self.servers, self.turn_urls, self.turn_secret, session_id, ttl_seconds, now)


def ice_servers(
    servers: Sequence[IceServer],
    turn_urls: Sequence[str],
    turn_secret: str | None,
    session_id: str,
    ttl_seconds: int,
    now: float,
) -> list[IceServerEntry]:
    """What goes into `RTCPeerConnection` for a token minted at `now` (unix seconds) that lives `ttl_seconds`.

    Within an entry UDP comes before TCP before TLS: browsers try in order of cost to themselves, not to the user.
    """
    minted = (
        turn_credentials(turn_secret, session_id, int(now) + ttl_seconds + TURN_SLACK_SECONDS) if turn_secret else None
    )
    entries: list[IceServerEntry] = []
    for server in [*servers, *([IceServer(turn_urls)] if turn_urls else [])]:
        entry: IceServerEntry = {"urls": sorted(server.urls, key=_rank)}
        if server.username is not None and server.credential is not None:
            entry["username"], entry["credential"] = server.username, server.credential
        elif minted is not None and any(_TURN.fullmatch(url) for url in server.urls):
            entry["username"], entry["credential"] = minted
        entries.append(entry)
    return entries


def turn_credentials(secret: str, session_id: str, expires_at: int) -> tuple[str, str]:
    """User name and password that a TURN server with this shared secret takes until `expires_at` (unix seconds)."""
    username = f"{expires_at}:{session_id}"
    # SHA-1 is what the scheme fixes; HMAC does not rest on its collision resistance.
    digest = hmac.new(secret.encode(), username.encode(), hashlib.sha1).digest()
    return username, base64.b64encode(digest).decode()


def check_ice(servers: Sequence[IceServer], turn_urls: Sequence[str], turn_secret: str | None) -> None:
    """Raise `IceConfigError` for anything that a browser would refuse or that could never relay."""
    if turn_secret is not None and not turn_secret:
        raise IceConfigError("turn_secret is empty")
    if turn_urls and turn_secret is None:
        raise IceConfigError("turn_urls need a turn_secret, the one the TURN server has (use-auth-secret in coturn)")
    for url in turn_urls:
        if not _check_url(url):
            raise IceConfigError(f"{url!r} is not a TURN server; turn_urls take turn: and turns: only")
    for server in servers:
        if not server.urls:
            raise IceConfigError("an ICE server has no urls")
        if (server.username is None) != (server.credential is None):
            raise IceConfigError(f"the ICE server {server.urls[0]!r} needs both username and credential, or neither")
        turns = [url for url in server.urls if _check_url(url)]
        if turns and server.username is None and turn_secret is None:
            raise IceConfigError(f"{turns[0]!r} needs username and credential, or a turn_secret to make them from")
    if sum(len(server.urls) for server in servers) + len(turn_urls) > MAX_URLS:
        raise IceConfigError(f"more than {MAX_URLS} ICE server URLs; browsers slow down from five on")


def _check_url(url: str) -> bool:
    """Whether it is a TURN URL (RFC 7065) and not a STUN one (RFC 7064); `IceConfigError` when it is neither."""
    if url.startswith(("stun:", "stuns:")) and "?" in url:
        raise IceConfigError(f"{url!r}: a stun URL has no 'transport', and browsers refuse it; leave it out")
    match = _STUN.fullmatch(url) or _TURN.fullmatch(url)
    if match is not None and 0 < int(match["port"] or "3478") <= 65535:
        return match.re is _TURN
    raise IceConfigError(
        f"{url!r} is not an ICE server URL such as stun:host:3478, turn:host:3478?transport=udp"
        " or turns:host:443?transport=tcp"
    )


def _rank(url: str) -> int:
    match = _TURN.fullmatch(url)
    if match is None:
        return 0
    if match["scheme"] == "turns":
        return 3
    return 2 if match["transport"] == "tcp" else 1
