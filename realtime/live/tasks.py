"""The tasks of one call: named by kind and key, all ended with it. A failure is logged with the call's ids."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeAlias

log = logging.getLogger("realtime.live")

Key: TypeAlias = tuple[str, object]
"""Kind and which one of it, for instance `("ear", item_id)`."""


class CallTasks:
    def __init__(self, session_id: str, log_ids: str) -> None:
        self._session_id = session_id
        self._log_ids = log_ids
        self._tasks: dict[Key, asyncio.Task[None]] = {}

    def run(self, key: Key, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=f"{self._session_id}:{key[0]}")
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._done(key, done))

    def _done(self, key: Key, task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s %s task failed", self._log_ids, key[0], exc_info=error)

    def count(self, kind: str) -> int:
        return sum(1 for of_kind, _ in self._tasks if of_kind == kind)

    def cancel(self, key: Key) -> None:
        task = self._tasks.get(key)
        if task is not None:
            task.cancel()

    async def gone(self, seconds: float) -> None:
        """Wait, so long at most, until every task has come to its end."""
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=seconds)

    def cancel_all(self) -> None:
        for task in self._tasks.values():
            task.cancel()
