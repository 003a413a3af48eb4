"""Who may use the page: whoever sits at this machine, and whoever opens a one-time link.

    nobody --loopback, loopback Host, nothing forwarded, a development key--> may mint
    nobody --secret of a one-time link, once--> visitor with a cookie --12 h--> nobody

The secret stands in the link's fragment, which browsers never send: no log and no preview of the link sees
it, only the page, which trades it for a cookie that scripts cannot read. Secrets and cookies are kept as
hashes. The development key itself never reaches a browser; the page gets a token for each call.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import Request

from realtime import development_key
from realtime.noticed import is_loopback
from realtime.settings import Settings, data_folder
from realtime.store.base import Store
from token_service.api_keys import ApiKeys

LINK_SECONDS = 15 * 60
"""How long a one-time link can be opened: long enough to carry it to a phone."""
VISIT_SECONDS = 12 * 3600
"""How long a browser that opened one may make calls."""
COOKIE = "realtime_page"
MAX_SECRET_CHARS = 128
_SECRET_BYTES = 32
_ADDRESS = "page:address"
_FORWARDED = ("forwarded", "via", "x-real-ip", "cf-connecting-ip", "true-client-ip")
_FORWARDED_PREFIX = "x-forwarded-"


class PageAccess:
    """`trusts_this_machine`: whether a browser on this machine needs no link (asked for every request)."""

    def __init__(self, store: Store, trusts_this_machine: Callable[[], Awaitable[bool]]) -> None:
        self._store = store
        self._trusts_this_machine = trusts_this_machine

    async def allows(self, request: Request) -> bool:
        """Whether this request of the page may have a token."""
        if not is_same_origin(request.headers):
            return False
        if is_from_this_machine(request) and await self._trusts_this_machine():
            return True
        cookie = request.cookies.get(COOKIE, "")
        return 0 < len(cookie) <= MAX_SECRET_CHARS and await self._store.get(_visit(cookie)) is not None

    async def redeem(self, secret: str) -> str | None:
        """A cookie's value for the secret of a link; None when it is used, too old or none of ours."""
        if not 0 < len(secret) <= MAX_SECRET_CHARS or not await self._store.delete(_link(secret)):
            return None
        visit = secrets.token_urlsafe(_SECRET_BYTES)
        await self._store.put(_visit(visit), b"", ttl=VISIT_SECONDS)
        return visit


def trust(settings: Settings, api_keys: ApiKeys) -> Callable[[], Awaitable[bool]]:
    """Whether browsers on this machine need no link: with a key for development, unless a proxy stands in front."""
    fixed = settings.server.api_key
    folder = data_folder(settings)

    async def trusts_this_machine() -> bool:
        if settings.server.public_url is not None:
            return False
        key = fixed.get_secret_value() if fixed is not None else development_key.read(folder)
        return key is not None and await api_keys.check(key) is not None

    return trusts_this_machine


async def remember_address(store: Store, url: str) -> None:
    """Where the page is, for `realtime link` beside the running server."""
    await store.put(_ADDRESS, url.encode())


async def address(store: Store) -> str | None:
    """Where the page is, or was when this server ran last."""
    known = await store.get(_ADDRESS)
    return None if known is None else known.decode()


async def new_link(store: Store, url: str | None = None) -> str | None:
    """A link that opens the page once: at `url`, else where the server last was; None when it never ran."""
    if url is None:
        url = await address(store)
        if url is None:
            return None
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    await store.put(_link(secret), b"", ttl=LINK_SECONDS)
    return f"{url.rstrip('/')}/#link={secret}"


def is_from_this_machine(request: Request) -> bool:
    """Whether a browser on this machine asked, under a name of this machine, with nothing in between.

    The name keeps out pages of other sites that made theirs point here (DNS rebinding). A proxy on this machine
    would make everybody look local: it is known by the headers it adds or, nginx as it comes, by HTTP/1.0.
    """
    client = request.client
    names = request.headers.keys()
    return (
        client is not None
        and is_loopback(client.host)
        and is_loopback(_host_name(request.headers.get("host", "")))
        and request.scope.get("http_version") != "1.0"
        and not any(name in _FORWARDED or name.startswith(_FORWARDED_PREFIX) for name in names)
    )


def is_same_origin(headers: Headers) -> bool:
    """Whether no other site's page made this request, as far as the browser says."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    # Over plain http to another machine browsers do not say it.
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")


def _host_name(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _link(secret: str) -> str:
    return f"page:link:{_digest(secret)}"


def _visit(cookie: str) -> str:
    return f"page:visit:{_digest(cookie)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()
