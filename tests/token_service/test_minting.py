"""Minting without HTTP: what every route that mints gets, and what it is kept from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from token_service.api_keys import ApiKey
from token_service.errors import Forbidden, InvalidRequest, TooManyRequests
from token_service.minting import (
    MAX_SESSION_BYTES,
    EffectiveSession,
    Minter,
    MintLimits,
    MintWish,
    load_session,
    save_session,
)
from token_service.tokens import new_session_id

SERVER = ApiKey("key_server", frozenset({"mint"}))
PAGE = ApiKey("key_page", frozenset({"mint"}), origins=("https://a.example",), agent="shop")


class Policy:
    """Takes everything, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def effective(
        self, *, agent: str | None, model: str | None, voice: str | None, session: Mapping[str, Any] | None
    ) -> EffectiveSession:
        self.asked.append({"agent": agent, "model": model, "voice": voice, "session": session})
        return EffectiveSession(agent or "default", model, voice, {**(session or {}), "checked": True})


@pytest.fixture
def policy() -> Policy:
    return Policy()


@pytest.fixture
def minter(tokens, store, policy, clock) -> Minter:
    return Minter(tokens, store, policy, limits=MintLimits(per_key=2), default_ttl_seconds=40, clock=clock)


async def test_the_policy_has_the_last_word_on_the_session(minter, policy, store, tokens):
    wish = MintWish(agent="shop", model="m", voice="v", session={"instructions": "x"})
    minted = await minter.mint(SERVER, wish)
    assert policy.asked == [{"agent": "shop", "model": "m", "voice": "v", "session": {"instructions": "x"}}]
    assert tokens.verify(minted.token) == minted.claims
    assert await load_session(store, minted.claims.session_id) == {"instructions": "x", "checked": True}
    assert minted.effective.session == {"instructions": "x", "checked": True}
    assert minted.ice_servers == []


async def test_a_reusable_token_says_so_and_lives_as_long_as_asked(minter, clock):
    minted = await minter.mint(SERVER, MintWish(ttl_seconds=3600), reusable=True)
    assert minted.claims.reusable
    assert minted.claims.expires_at == clock.now + 3600
    assert (await minter.mint(SERVER, MintWish())).claims.expires_at == clock.now + 40


async def test_a_page_key_is_held_to_its_agent_whatever_the_route(minter, policy):
    minted = await minter.mint(PAGE, MintWish())
    assert policy.asked[-1]["agent"] == "shop"
    assert (minted.claims.subject, minted.claims.origins) == ("key_page", ("https://a.example",))
    for wish in (MintWish(agent="default"), MintWish(session={})):
        with pytest.raises(Forbidden):
            await minter.mint(PAGE, wish)
    assert len(policy.asked) == 1


@pytest.mark.parametrize("wish", [MintWish(ttl_seconds=5), MintWish(model="m" * 2000), MintWish(voice="é" * 1000)])
async def test_what_no_token_can_hold_is_an_invalid_request(minter, store, wish):
    with pytest.raises(InvalidRequest):
        await minter.mint(SERVER, wish)
    assert await store.scan("session:") == []


async def test_a_session_is_bounded(store):
    with pytest.raises(InvalidRequest) as caught:
        await save_session(store, new_session_id(), {"instructions": "x" * MAX_SESSION_BYTES}, 60)
    assert caught.value.param == "session"


async def test_a_limit_says_how_long_to_wait(minter, clock):
    clock.now += 59.5 - clock.now % 60
    await minter.check_rate(SERVER, "203.0.113.5")
    await minter.check_rate(SERVER, "203.0.113.6")
    with pytest.raises(TooManyRequests) as caught:
        await minter.check_rate(SERVER, "203.0.113.7")
    assert caught.value.retry_after == 1.0
    clock.now += 0.5
    await minter.check_rate(SERVER, "203.0.113.7")


async def test_no_address_lies_in_the_store(minter, store):
    await minter.check_rate(PAGE, "203.0.113.5")
    assert all("203.0.113" not in name for name, _ in await store.scan(""))
