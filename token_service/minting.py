"""Makes a live session's token out of an API key's wish: what the key allows, what the policy makes of it.

Every route that mints goes through `Minter.mint`, so limits and restrictions hold for all of them.
Minting can only narrow: a page key has one agent and no `session` of its own, and what an agent, a
model or a voice is, the `SessionPolicy` decides. A `session` goes into the store under the session's
id, never into the token, which callers can read.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from token_service.api_keys import ApiKey
from token_service.errors import Forbidden, InvalidRequest, TooManyRequests
from token_service.ice import IceConfig, IceServerEntry
from token_service.storage import Store
from token_service.tokens import Claims, Tokens, is_session_id

SESSION_SLACK_SECONDS = 60
"""A session is kept this much longer than its token: the token may be admitted in its last second."""
MAX_SESSION_BYTES = 256 * 1024
"""Of the effective session as JSON; a request has at most 64 kB, the agent's own part comes on top."""
WINDOW_SECONDS = 60
"""Limits count requests per minute of the wall clock."""


@dataclass(frozen=True, slots=True)
class EffectiveSession:
    """What a session will run with. `session`: settings of its own over the agent's, {} for none."""

    agent: str
    model: str | None = None
    voice: str | None = None
    session: Mapping[str, Any] = field(default_factory=dict)


class SessionPolicy(Protocol):
    """Knows the agents, models and voices that exist, and what a caller may set."""

    def effective(
        self, *, agent: str | None, model: str | None, voice: str | None, session: Mapping[str, Any] | None
    ) -> EffectiveSession:
        """What these wishes come to; `InvalidRequest` names a field that cannot be."""


@dataclass(frozen=True, slots=True)
class MintWish:
    """What the caller of a minting route asked for, already parsed."""

    agent: str | None = None
    model: str | None = None
    voice: str | None = None
    session: Mapping[str, Any] | None = None
    ttl_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class MintLimits:
    """Tokens a minute. Page keys are public, so they have limits of their own, in all and for each address."""

    per_key: int = 600
    per_page_key: int = 120
    per_address: int = 10


@dataclass(frozen=True, slots=True)
class Minted:
    token: str
    claims: Claims
    ice_servers: list[IceServerEntry]
    effective: EffectiveSession


class Minter:
    """`clock`: unix seconds, the same one that the tokens use."""

    def __init__(
        self,
        tokens: Tokens,
        store: Store,
        policy: SessionPolicy,
        *,
        ice: IceConfig | None = None,
        limits: MintLimits | None = None,
        default_ttl_seconds: int = 300,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._tokens = tokens
        self._store = store
        self._policy = policy
        self._ice = ice or IceConfig()
        self._limits = limits or MintLimits()
        self._default_ttl_seconds = default_ttl_seconds
        self._clock = clock

    async def check_rate(self, key: ApiKey, address: str) -> None:
        """Count a request of `key` from `address`; `TooManyRequests` when it is one too many."""
        if not key.in_page:
            await self._count(key.id, self._limits.per_key)
            return
        # The address first: one visitor who is over it must not use up the page's share for all the others.
        await self._count(f"{key.id}:{_address_digest(address)}", self._limits.per_address)
        await self._count(key.id, min(self._limits.per_key, self._limits.per_page_key))

    async def mint(self, key: ApiKey, wish: MintWish, *, reusable: bool = False) -> Minted:
        """A token for `key` (its scope and origin were checked). `Forbidden`, `InvalidRequest`."""
        if key.in_page and wish.session is not None:
            raise Forbidden("A key for web pages cannot set a session of its own.", code="session_not_allowed")
        if key.agent is not None and wish.agent not in (None, key.agent):
            raise Forbidden(f"This key is for the agent '{key.agent}' only.", code="agent_not_allowed")
        effective = self._policy.effective(
            agent=key.agent or wish.agent, model=wish.model, voice=wish.voice, session=wish.session
        )
        ttl_seconds = self._default_ttl_seconds if wish.ttl_seconds is None else wish.ttl_seconds
        try:
            token, claims = self._tokens.mint(
                subject=key.id,
                agent=effective.agent,
                ttl_seconds=ttl_seconds,
                model=effective.model,
                voice=effective.voice,
                origins=key.origins,
                reusable=reusable,
            )
        except ValueError as error:
            raise InvalidRequest("", f"No token can be made of this: {error}.") from None
        await save_session(self._store, claims.session_id, effective.session, ttl_seconds)
        ice = self._ice.for_session(claims.session_id, ttl_seconds, self._clock())
        return Minted(token, claims, ice, effective)

    async def _count(self, who: str, limit: int) -> None:
        now = self._clock()
        window = int(now // WINDOW_SECONDS)
        # The counter lives one window longer than it counts, for servers whose clocks differ a little.
        count = await self._store.increment(f"rate:mint:{who}:{window}", ttl=2 * WINDOW_SECONDS)
        if count > limit:
            retry_after = max(1.0, (window + 1) * WINDOW_SECONDS - now)
            raise TooManyRequests(retry_after, f"At most {limit} tokens a minute here.", reason=f"limit of {who}")


async def save_session(store: Store, session_id: str, session: Mapping[str, Any], ttl_seconds: float) -> None:
    """Keep the session's own settings for as long as its token can open a call. An empty one is not stored."""
    if not session:
        return
    data = json.dumps(session, separators=(",", ":")).encode()
    if len(data) > MAX_SESSION_BYTES:
        raise InvalidRequest("session", f"The session takes {len(data)} bytes; at most {MAX_SESSION_BYTES} are kept.")
    await store.put(_session_key(session_id), data, ttl=ttl_seconds + SESSION_SLACK_SECONDS)


async def load_session(store: Store, session_id: str) -> Mapping[str, Any]:
    """The settings stored with a token when it was minted; {} when there were none."""
    data = await store.get(_session_key(session_id)) if is_session_id(session_id) else None
    if data is None:
        return {}
    session: Mapping[str, Any] = json.loads(data)
    return session


def _session_key(session_id: str) -> str:
    return f"session:{session_id}"


def visitor(address: str) -> str:
    """Who counts as one visitor: an IPv4 address, or the /64 that one IPv6 customer has all to themselves."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    if isinstance(parsed, ipaddress.IPv6Address) and mapped is None:
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(mapped or parsed)


def _address_digest(address: str) -> str:
    """Addresses are personal data and need not lie in the store in clear."""
    return hashlib.sha256(visitor(address).encode(errors="replace")).hexdigest()[:32]
