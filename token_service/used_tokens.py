"""Which tokens are used up, by which offer, and what that offer was answered; and which sessions are revoked.

A token that is not reusable admits one call. Posting the same offer again returns the same answer, so
a lost response or a reload costs nothing; another offer with the same token is `Unauthorized`. Each
token has one record in the store, and its states are:

    absent --claim--> PENDING --record--> ANSWERED --(expiry)--> absent
                         |
                         +--release, or nothing recorded for PENDING_SECONDS--> absent

A PENDING record ends by itself because a process that died while it answered must not keep the token
from its caller. An ANSWERED record outlives its token, so nobody gets a second call out of it.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from token_service.errors import Unauthorized
from token_service.storage import Store
from token_service.tokens import is_session_id, session_id

PENDING_SECONDS = 60.0
"""Answering an offer takes well under a second, with a slow store a few; a minute means the process is gone."""
SLACK_SECONDS = 60.0
"""Records outlive their token this long: clocks of servers that share a store differ, and no harm is done."""
REVOKED_SECONDS = 2 * 3600.0
"""A revocation has to outlive the longest token (one hour)."""
MAX_ANSWER_BYTES = 256 * 1024
_POLL_SECONDS = 0.05
"""How often a waiting caller looks; a repeated offer while the first one is being answered is rare."""
_CLAIM_TRIES = 4
"""The record may vanish between two steps, but not for ever."""


class ClaimState(StrEnum):
    FRESH = "fresh"
    """The token is the caller's now: answer the offer, then `record`, or `release`."""
    PENDING = "pending"
    """The same offer is being answered elsewhere: `wait`, or tell the client to try again."""


@dataclass(frozen=True, slots=True)
class _Record:
    digest: str
    expires_at: int
    answer: bytes | None

    def serialize(self) -> bytes:
        head = {"digest": self.digest, "expires_at": self.expires_at, "answered": self.answer is not None}
        return json.dumps(head).encode() + b"\n" + (self.answer or b"")

    @classmethod
    def parse(cls, data: bytes) -> _Record:
        line, _, answer = data.partition(b"\n")
        head = json.loads(line)
        return cls(head["digest"], head["expires_at"], answer if head["answered"] else None)


class UsedTokens:
    """Over any store; safe with several processes on the same one. `clock`: unix seconds."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    async def claim(self, jti: str, offer_digest: str, expires_at: int) -> ClaimState | bytes:
        """Take the token `jti` (which expires at `expires_at`) for the offer with this digest.

        FRESH for the first to come, PENDING or the recorded answer for the same offer again,
        `Unauthorized` (token_used) for another offer.
        """
        pending = _Record(offer_digest, expires_at, None).serialize()
        for _ in range(_CLAIM_TRIES):
            if await self._store.add(_used_key(jti), pending, ttl=PENDING_SECONDS):
                return ClaimState.FRESH
            record = await self._get(jti)
            if record is None:
                continue  # It expired or was released in between: the token is free again.
            if record.digest != offer_digest:
                raise _used()
            return ClaimState.PENDING if record.answer is None else record.answer
        return ClaimState.PENDING

    async def wait(self, jti: str, offer_digest: str, *, timeout_seconds: float = 5.0) -> bytes | None:
        """The answer that another request is making for the same offer; None when it gave up or took too long."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            record = await self._get(jti)
            if record is None:
                return None
            if record.digest != offer_digest:
                raise _used()
            if record.answer is not None:
                return record.answer
            if time.monotonic() >= deadline:
                return None
            await asyncio.sleep(_POLL_SECONDS)

    async def record(self, jti: str, offer_digest: str, answer: bytes) -> None:
        """The claimed offer was admitted and answered. `Unauthorized` when the claim had run out meanwhile."""
        if len(answer) > MAX_ANSWER_BYTES:
            raise ValueError(f"an answer of {len(answer)} bytes; at most {MAX_ANSWER_BYTES} are kept")
        record = await self._get(jti)
        if record is None or record.digest != offer_digest:
            raise _used()
        answered = _Record(offer_digest, record.expires_at, answer)
        remaining = max(0.0, record.expires_at - self._clock())
        await self._store.put(_used_key(jti), answered.serialize(), ttl=remaining + SLACK_SECONDS)

    async def release(self, jti: str, offer_digest: str | None = None) -> None:
        """The claimed offer was not admitted: the token may be tried again. Nothing happens once it is answered.

        With `offer_digest`, only that offer's claim ends: another may hold the token when this one had run out.
        """
        record = await self._get(jti)
        if record is not None and record.answer is None and offer_digest in (None, record.digest):
            await self._store.delete(_used_key(jti))

    async def revoke(self, any_id: str) -> None:
        """No token of this session (named by its or its call's id) opens a call any more."""
        if is_session_id(session_id(any_id)):
            await self._store.put(_revoked_key(any_id), b"1", ttl=REVOKED_SECONDS)

    async def is_revoked(self, any_id: str) -> bool:
        return is_session_id(session_id(any_id)) and await self._store.get(_revoked_key(any_id)) is not None

    async def _get(self, jti: str) -> _Record | None:
        data = await self._store.get(_used_key(jti))
        return None if data is None else _Record.parse(data)


def _used() -> Unauthorized:
    return Unauthorized("The token has been used already.", code="token_used")


def _used_key(jti: str) -> str:
    return f"token:used:{jti}"


def _revoked_key(any_id: str) -> str:
    return f"token:revoked:{session_id(any_id)}"
