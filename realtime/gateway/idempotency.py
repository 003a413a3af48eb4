"""The same key and the same body give the same result, once: claims and results in the store.

    (nothing) --claim--> RUNNING --finish--> DONE (24 h) --same body--> replayed
        ^                   |  `--same body--> 409        `--other body--> 422
        `--abandon, lease---'

A claim is one atomic `add`, so of many identical requests at once one does the work. It is a short lease that
is renewed as long as the work goes on: when the process dies the key is free again seconds later, so that a
retry after the restart does the work again. What may turn out differently
the next time (408, 409, 429, 5xx) is never kept. Keys are stored as hashes, under the caller's own key
and the route, so that nobody can replay another's result.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from realtime.gateway.errors import GatewayError
from realtime.store.base import MAX_VALUE_BYTES, Store, StoreError

KEPT_S = 24 * 3600.0
LEASE_S = 6.0
"""Seconds that a claim lives unless it is renewed: about as long as a server takes to come back."""
RENEW_S = 1.5
"""Seconds between renewals: three may be missed."""
SLACK_S = 30.0
"""Seconds a claim is renewed beyond the request's deadline: the result still has to be written."""
MAX_PARTS = 64
"""Values of 1 MiB of one result, compressed."""

_UNSTABLE = frozenset({408, 409, 425, 429})


@dataclass(frozen=True, slots=True)
class Stored:
    """`json`: one body. `events`: the chunks of a stream, in order, as they were sent."""

    kind: Literal["json", "events"]
    status: int
    body: bytes
    media_type: str = "application/json"


def fingerprint(document: dict[str, Any]) -> str:
    """Of the body without its key; the order of fields does not matter."""
    rest = {name: value for name, value in document.items() if name != "idempotency_key"}
    return hashlib.sha256(orjson.dumps(rest, option=orjson.OPT_SORT_KEYS)).hexdigest()


class Idempotency:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def claim(self, owner: str, route: str, key: str, print_: str, seconds: float) -> Claim | Stored:
        """The right to do the work, or what came of it. Raises 409 and 422."""
        name = "idem:" + hashlib.sha256(f"{owner}\n{route}\n{key}".encode()).hexdigest()
        running = orjson.dumps({"state": "running", "print": print_})
        for _ in range(3):
            if await self._store.add(name, running, ttl=LEASE_S):
                return Claim(self._store, name, print_, running, seconds + SLACK_S)
            found = await self._store.get(name)
            if found is not None:
                return await self._known(name, orjson.loads(found), print_)
        raise GatewayError(409, "idempotency_in_progress", "This key changes hands too fast.", retry_after=1)

    async def _known(self, name: str, record: dict[str, Any], print_: str) -> Stored:
        if record["print"] != print_:
            message = "This idempotency key was used with another body."
            raise GatewayError(422, "idempotency_mismatch", message, param="idempotency_key")
        if record["state"] == "running":
            message = "A request with this idempotency key is still running."
            raise GatewayError(409, "idempotency_in_progress", message, retry_after=1, retryable=True)
        parts = await asyncio.gather(*(self._store.get(f"{name}:{n}") for n in range(record["parts"])))
        if any(part is None for part in parts):
            raise StoreError(f"parts of the result {name} are missing")
        body = zlib.decompress(b"".join(part for part in parts if part is not None))
        return Stored(record["kind"], record["status"], body, record["media_type"])


class Claim:
    """Held by the one who does the work; ends with `finish` or `abandon`. Renewed until then, for `seconds` at most."""

    def __init__(self, store: Store, name: str, print_: str, running: bytes, seconds: float) -> None:
        self._store = store
        self._name = name
        self._print = print_
        self._renewing = asyncio.create_task(self._renew(running, seconds))

    async def finish(self, result: Stored) -> None:
        """Keeps `result` for 24 hours, or frees the key when it is none to keep."""
        if result.status >= 500 or result.status in _UNSTABLE:
            await self.abandon()
            return
        body = await asyncio.to_thread(zlib.compress, result.body, 1)
        parts = [body[at : at + MAX_VALUE_BYTES] for at in range(0, len(body), MAX_VALUE_BYTES)]
        if len(parts) > MAX_PARTS:
            raise StoreError("the result is too large to be kept")
        for number, part in enumerate(parts):
            await self._store.put(f"{self._name}:{number}", part, ttl=KEPT_S + 60)
        record = {
            "state": "done",
            "print": self._print,
            "kind": result.kind,
            "status": result.status,
            "media_type": result.media_type,
            "parts": len(parts),
        }
        await self._stop()
        await self._store.put(self._name, orjson.dumps(record), ttl=KEPT_S)

    async def abandon(self) -> None:
        await self._stop()
        await self._store.delete(self._name)

    async def _stop(self) -> None:
        """Before the last word: a renewal under way must not overwrite it."""
        self._renewing.cancel()
        await asyncio.wait([self._renewing])

    async def _renew(self, running: bytes, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(RENEW_S)
            with contextlib.suppress(StoreError):
                await self._store.put(self._name, running, ttl=LEASE_S)
