"""API keys: who may mint tokens, look at calls, use the one-shot endpoints; made, listed, revoked here.

A key is `ifr_pk_proj_` and 256 random bits, shown once. At rest there is its SHA-256 only. A slow
password hash would add nothing: it defends guessable secrets, and nobody guesses 256 bits. The record
is found by the key's id, which is the start of that hash, and then compared in constant time over the
whole of it; nothing is scanned and no plaintext is kept or logged.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from token_service.errors import InvalidRequest
from token_service.storage import Store

KEY_PREFIX = "ifr_pk_proj_"
SECRET_BYTES = 32
SCOPES = frozenset({"mint", "calls", "chat", "media", "admin"})
MAX_KEYS = 1000
MAX_NAME_CHARS = 200
MAX_ORIGINS = 16
MAX_ORIGINS_CHARS = 800
"""The origins travel in every token of the key, and a token has 4 kB."""
MAX_PRESENTED_CHARS = 512
REVOKED_KEPT_SECONDS = 365 * 24 * 3600.0
"""A revoked key is still listed for a year, so that a log line about it can be understood."""

_ID_HEX = 16
"""64 bits of the hash: two keys of one store never share an id in practice, and `add` would notice."""
_STORE_PREFIX = "api_key:"
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")
_AGENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


@dataclass(frozen=True, slots=True)
class ApiKey:
    """One key as it is known to the server. `origins`: () for a key that stays on servers; `agent`: the only
    agent it may use, None for any; times are unix seconds."""

    id: str
    scopes: frozenset[str]
    name: str = ""
    origins: tuple[str, ...] = ()
    agent: str | None = None
    created_at: int = 0
    revoked_at: int | None = None

    def allows(self, scope: str) -> bool:
        """Whether it carries `scope`; admin implies all."""
        return scope in self.scopes or "admin" in self.scopes

    @property
    def in_page(self) -> bool:
        """Whether it may stand in a web page, and is held to what such a key may do."""
        return bool(self.origins)


class ApiKeys:
    """The keys of one store, and fixed ones that live in memory. `clock`: unix seconds."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._fixed: list[tuple[bytes, ApiKey]] = []

    def add_fixed(self, plaintext: str, scopes: Iterable[str] = SCOPES, *, name: str = "fixed") -> ApiKey:
        """Take a key that the environment gives. It is never stored. ValueError when it cannot be sent in a header."""
        if not plaintext or len(plaintext) > MAX_PRESENTED_CHARS or not re.fullmatch(r"[\x21-\x7e]+", plaintext):
            raise ValueError(f"an API key is 1 to {MAX_PRESENTED_CHARS} visible ASCII characters without spaces")
        digest = _digest(plaintext)
        key = ApiKey(_id_of(digest), _checked_scopes(scopes), name, created_at=int(self._clock()))
        self._fixed.append((digest, key))
        return key

    async def create(
        self, name: str, scopes: Iterable[str], *, origins: Iterable[str] = (), agent: str | None = None
    ) -> tuple[str, ApiKey]:
        """A new key: its plaintext, which is not kept, and its record. `InvalidRequest` names a wrong argument."""
        if len(name) > MAX_NAME_CHARS or not name.isprintable():
            raise InvalidRequest("name", f"A name is one line of at most {MAX_NAME_CHARS} characters.")
        allowed = _checked_scopes(scopes)
        pages = _checked_origins(origins)
        if pages and allowed != {"mint"}:
            raise InvalidRequest("scopes", "A key restricted to origins stands in a web page: it may only have 'mint'.")
        if agent is not None and not _AGENT.fullmatch(agent):
            raise InvalidRequest("agent", f"{agent!r} is not an agent's name.")
        if len(await self._store.scan(_STORE_PREFIX, limit=MAX_KEYS)) >= MAX_KEYS:
            raise InvalidRequest("", f"There are {MAX_KEYS} keys already; revoked ones go after a year.")
        plaintext = KEY_PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        digest = _digest(plaintext)
        # A page key is for one agent, always: without a name that is the default one.
        agent = agent or ("default" if pages else None)
        key = ApiKey(_id_of(digest), allowed, name, pages, agent, int(self._clock()))
        if not await self._store.add(_STORE_PREFIX + key.id, _serialize(key, digest)):
            raise InvalidRequest("", "The new key's id is taken; try again.")
        return plaintext, key

    async def list(self) -> list[ApiKey]:
        """Every stored key, oldest first; fixed ones are not stored."""
        rows = await self._store.scan(_STORE_PREFIX, limit=MAX_KEYS)
        keys = [_parse(key.removeprefix(_STORE_PREFIX), data)[1] for key, data in rows]
        return sorted(keys, key=lambda key: (key.created_at, key.id))

    async def revoke(self, id_: str) -> bool:
        """End a key at once, here and in every process on the same store; False when there is none to end."""
        if not re.fullmatch(rf"key_[0-9a-f]{{{_ID_HEX}}}", id_):
            return False
        data = await self._store.get(_STORE_PREFIX + id_)
        if data is None:
            return False
        digest, key = _parse(id_, data)
        if key.revoked_at is not None:
            return False
        revoked = _serialize(replace(key, revoked_at=int(self._clock())), digest)
        await self._store.put(_STORE_PREFIX + id_, revoked, ttl=REVOKED_KEPT_SECONDS)
        return True

    async def check(self, presented: str) -> ApiKey | None:
        """The key that this text is, or None when it is none, or revoked. Any text may be asked."""
        if len(presented) > MAX_PRESENTED_CHARS or not presented.isascii():
            return None
        digest = _digest(presented)
        for known, key in self._fixed:
            if hmac.compare_digest(known, digest):
                return key
        if not presented.startswith(KEY_PREFIX):
            return None
        id_ = _id_of(digest)
        data = await self._store.get(_STORE_PREFIX + id_)
        if data is None:
            return None
        known, key = _parse(id_, data)
        return key if hmac.compare_digest(known, digest) and key.revoked_at is None else None


def normalise_origin(origin: str) -> str | None:
    """An origin as browsers send it (lower case, no default port, no slash), or None when it is not one."""
    match = _ORIGIN.fullmatch(origin.strip().lower().removesuffix("/")) if len(origin) <= MAX_ORIGINS_CHARS else None
    if match is None:
        return None
    scheme, host, port = match.groups()
    if port is None or port == _DEFAULT_PORTS.get(scheme):
        return f"{scheme}://{host}"
    return f"{scheme}://{host}:{int(port)}" if int(port) <= 65535 else None


def _digest(plaintext: str) -> bytes:
    return hashlib.sha256(plaintext.encode()).digest()


def _id_of(digest: bytes) -> str:
    return "key_" + digest.hex()[:_ID_HEX]


def _checked_scopes(scopes: Iterable[str]) -> frozenset[str]:
    chosen = frozenset(scopes)
    if not chosen or not chosen <= SCOPES:
        wrong = ", ".join(sorted(chosen - SCOPES)) or "none given"
        raise InvalidRequest("scopes", f"Scopes are {', '.join(sorted(SCOPES))}; not: {wrong}.")
    return chosen


def _checked_origins(origins: Iterable[str]) -> tuple[str, ...]:
    pages: dict[str, None] = {}
    for origin in origins:
        page = normalise_origin(origin)
        if page is None:
            raise InvalidRequest("origins", f"{origin!r} is not an origin such as https://app.example.")
        pages[page] = None
    if len(pages) > MAX_ORIGINS or sum(map(len, pages)) > MAX_ORIGINS_CHARS:
        raise InvalidRequest("origins", f"At most {MAX_ORIGINS} origins with {MAX_ORIGINS_CHARS} characters in all.")
    return tuple(pages)


def _serialize(key: ApiKey, digest: bytes) -> bytes:
    fields: dict[str, Any] = {
        "sha256": digest.hex(),
        "scopes": sorted(key.scopes),
        "name": key.name,
        "origins": list(key.origins),
        "agent": key.agent,
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
    }
    return json.dumps(fields).encode()


def _parse(id_: str, data: bytes) -> tuple[bytes, ApiKey]:
    fields = json.loads(data)
    key = ApiKey(
        id=id_,
        scopes=frozenset(fields["scopes"]),
        name=fields["name"],
        origins=tuple(fields["origins"]),
        agent=fields["agent"],
        created_at=fields["created_at"],
        revoked_at=fields["revoked_at"],
    )
    return bytes.fromhex(fields["sha256"]), key
