"""Calls that a webhook has announced and whose socket has not come yet.

Our answer to the webhook puts a one-time token into the call; the socket brings it back. It opens one call,
within a minute, on the line and for the call that it was made for. And a call is opened once: a webhook that
is repeated after its call was opened, by whoever recorded it, is refused.

    announced --socket with token, line and call id--> opened --a day--> forgotten
        +------------- 60 s -------------------------> forgotten
"""

from __future__ import annotations

import hashlib
import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict

import orjson

from signaling.errors import CallError
from signaling.telephony.carrier import Incoming
from token_service.storage import Store

TOKEN_SECONDS = 60.0
OPENED_SECONDS = 86_400.0
"""Longer than any carrier lets a call last."""


class Expected:
    """Over any store, safe with several processes on the same one. `clock`: unix seconds."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    async def announce(self, line: str, incoming: Incoming) -> str:
        """A fresh token for the call, a random UUID. Raises `CallError` when the call was opened before."""
        if incoming.call_id and await self._store.get(_opened_key(line, incoming.call_id)) is not None:
            raise CallError(409, "call_opened", "This call has been opened already.", reason="a repeated webhook")
        token = str(uuid.UUID(bytes=secrets.token_bytes(16), version=4))
        record = {"line": line, "expires_at": self._clock() + TOKEN_SECONDS, **asdict(incoming)}
        await self._store.put(_token_key(token), orjson.dumps(record), ttl=TOKEN_SECONDS)
        return token

    async def open(self, line: str, token: str, call_id: str) -> Incoming:
        """Use the token up. Raises `CallError`; the reason stays in the log."""
        key = _token_key(token)
        data = await self._store.get(key) if token else None
        if data is None:
            raise _refused("no such token")
        if not await self._store.add(f"{key}:used", b"1", ttl=2 * TOKEN_SECONDS):
            raise _refused("the token was used before")
        await self._store.delete(key)
        record = orjson.loads(data)
        if record.pop("expires_at") < self._clock():
            raise _refused("the token has expired")
        if record.pop("line") != line:
            raise _refused("the token is for another line")
        incoming = Incoming(**record)
        if incoming.call_id:
            if incoming.call_id != call_id:
                raise _refused("the token is for another call")
            if not await self._store.add(_opened_key(line, call_id), b"1", ttl=OPENED_SECONDS):
                raise _refused("the call was opened before")
        return incoming


def _refused(reason: str) -> CallError:
    return CallError(401, "call_not_expected", "This call was not announced.", reason=reason)


def _token_key(token: str) -> str:
    return f"telephony:token:{hashlib.sha256(token.encode(errors='replace')).hexdigest()}"


def _opened_key(line: str, call_id: str) -> str:
    return f"telephony:opened:{line}:{hashlib.sha256(call_id.encode(errors='replace')).hexdigest()}"
