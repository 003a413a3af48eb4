"""Single use: one call for each token, the same answer for the same offer, and no punishment for a failure."""

from __future__ import annotations

import asyncio

import pytest

from realtime.store.sqlite import SqliteStore
from token_service.errors import Unauthorized
from token_service.tokens import call_id, new_session_id
from token_service.used_tokens import MAX_ANSWER_BYTES, PENDING_SECONDS, ClaimState, UsedTokens

EXPIRES = 1_800_000_300


async def refused(awaitable) -> None:
    with pytest.raises(Unauthorized) as caught:
        await awaitable
    assert caught.value.code == "token_used"


async def test_the_same_offer_gets_the_same_answer_and_another_is_refused(used):
    assert await used.claim("jti", "one", EXPIRES) is ClaimState.FRESH
    assert await used.claim("jti", "one", EXPIRES) is ClaimState.PENDING
    await refused(used.claim("jti", "two", EXPIRES))
    await used.record("jti", "one", b"v=0\r\n\nanswer\x00")
    assert await used.claim("jti", "one", EXPIRES) == b"v=0\r\n\nanswer\x00"
    await refused(used.claim("jti", "two", EXPIRES))
    assert await used.claim("other", "two", EXPIRES) == "fresh"


async def test_of_many_claims_at_once_one_is_fresh(used):
    states = await asyncio.gather(*(used.claim("jti", "one", EXPIRES) for _ in range(100)))
    assert states.count(ClaimState.FRESH) == 1
    assert states.count(ClaimState.PENDING) == 99


async def test_a_released_token_may_be_tried_again_with_any_offer(used):
    await used.claim("jti", "one", EXPIRES)
    await used.release("jti")
    assert await used.claim("jti", "two", EXPIRES) is ClaimState.FRESH


async def test_a_release_after_the_answer_or_for_another_offer_frees_nothing(used):
    await used.claim("jti", "one", EXPIRES)
    await used.release("jti", "two")
    await refused(used.claim("jti", "two", EXPIRES))
    await used.record("jti", "one", b"answer")
    await used.release("jti")
    await refused(used.claim("jti", "two", EXPIRES))
    await used.release("never-claimed")


async def test_a_claim_whose_process_died_ends_by_itself(used, clock):
    await used.claim("jti", "one", EXPIRES)
    clock.now += PENDING_SECONDS
    assert await used.claim("jti", "two", EXPIRES) is ClaimState.FRESH
    await refused(used.record("jti", "one", b"too late"))
    await used.record("jti", "two", b"answer")
    assert await used.claim("jti", "two", EXPIRES) == b"answer"


async def test_a_used_token_stays_used_until_it_has_expired(used, clock):
    await used.claim("jti", "one", EXPIRES)
    await used.record("jti", "one", b"answer")
    clock.now = EXPIRES + 1
    await refused(used.claim("jti", "two", EXPIRES))
    assert await used.claim("jti", "one", EXPIRES) == b"answer"


async def test_records_do_not_pile_up(used, store, clock):
    await used.claim("jti", "one", EXPIRES)
    await used.record("jti", "one", b"answer")
    await used.revoke(new_session_id())
    clock.now += 3 * 3600
    assert await store.scan("") == []


async def test_a_waiting_request_gets_the_answer_of_the_first(used):
    await used.claim("jti", "one", EXPIRES)
    waiting = asyncio.ensure_future(used.wait("jti", "one", timeout_seconds=10))
    await asyncio.sleep(0)
    await used.record("jti", "one", b"answer")
    assert await asyncio.wait_for(waiting, 10) == b"answer"


async def test_waiting_ends_when_the_first_gives_up_or_takes_too_long(used):
    await used.claim("jti", "one", EXPIRES)
    assert await used.wait("jti", "one", timeout_seconds=0) is None
    await refused(used.wait("jti", "two", timeout_seconds=0))
    waiting = asyncio.ensure_future(used.wait("jti", "one", timeout_seconds=10))
    await asyncio.sleep(0)
    await used.release("jti")
    assert await asyncio.wait_for(waiting, 10) is None


async def test_an_answer_without_bounds_is_not_kept(used):
    await used.claim("jti", "one", EXPIRES)
    with pytest.raises(ValueError, match="at most"):
        await used.record("jti", "one", b"x" * (MAX_ANSWER_BYTES + 1))
    await used.record("jti", "one", b"x" * MAX_ANSWER_BYTES)


async def test_a_revoked_session_is_known_until_its_longest_token_is_over(used, clock):
    session = new_session_id()
    assert not await used.is_revoked(session)
    await used.revoke(session)
    await used.revoke(session)
    clock.now += 3600
    assert await used.is_revoked(session)
    assert not await used.is_revoked(new_session_id())


async def test_a_session_may_be_named_by_its_calls_id(used):
    session = new_session_id()
    await used.revoke(call_id(session))
    assert await used.is_revoked(session)


@pytest.mark.parametrize("id_", ["", "sess_1", "a b", "é", "\ud800", "x" * 10_000])
async def test_what_is_no_session_is_never_revoked(used, store, id_):
    await used.revoke(id_)
    assert not await used.is_revoked(id_)
    assert await store.scan("") == []


async def test_a_used_token_is_remembered_over_a_restart(tmp_path, clock):
    store = SqliteStore(tmp_path / "s.db", clock=clock)
    used = UsedTokens(store, clock=clock)
    await used.claim("jti", "one", EXPIRES)
    await used.record("jti", "one", b"answer")
    await store.close()
    store = SqliteStore(tmp_path / "s.db", clock=clock)
    used = UsedTokens(store, clock=clock)
    assert await used.claim("jti", "one", EXPIRES) == b"answer"
    await refused(used.claim("jti", "two", EXPIRES))
    await store.close()
