"""Whether the store can still be written: what `/readyz` asks, since no token is minted or used up without.

It tries: a record as large as what a call keeps is added and removed again. A full disk, a full file and one that has
become read-only look alike then, and what is removed leaves room for the next call. However often it is asked, it
tries once in `EVERY_S`, and the event loop never waits for a disk that hangs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable

from realtime.store.base import Store, StoreError

EVERY_S = 5.0
PATIENCE_S = 2.0
"""After that a store counts as one that cannot be written; a balancer would not wait much longer."""
_RECORD_BYTES = 16 << 10
"""An SDP answer that is kept with its token takes a few KiB."""
_TTL_S = 60.0
"""Of a record that could not be removed."""

logger = logging.getLogger(__name__)


class Writable:
    """Asked by calling it. `clock`: monotonic seconds."""

    def __init__(self, store: Store, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._key = f"probe:{secrets.token_hex(8)}"
        self._lock = asyncio.Lock()
        self._tried_at = float("-inf")
        self._trouble: str | None = None

    async def __call__(self) -> bool:
        async with self._lock:
            if self._clock() - self._tried_at >= EVERY_S:
                before, self._trouble = self._trouble, await self._try()
                self._tried_at = self._clock()
                self._tell(before)
            return self._trouble is None

    async def _try(self) -> str | None:
        """What is wrong."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._store.add(self._key, os.urandom(_RECORD_BYTES), ttl=_TTL_S)
                await self._store.delete(self._key)
        except TimeoutError:
            return f"it takes longer than {PATIENCE_S:g} s"
        except StoreError as error:
            return str(error)
        return None

    def _tell(self, before: str | None) -> None:
        if self._trouble is not None and before is None:
            logger.warning("the store cannot be written, and no token can be made or used up: %s", self._trouble)
        elif self._trouble is None and before is not None:
            logger.info("the store can be written again")
