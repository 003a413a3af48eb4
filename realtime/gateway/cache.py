"""Answers kept for `cache_strategy: "infrai"`: the very same request of the same key gets the same answer.

In memory, bounded in bytes and in time. Whether a request is the same is decided by its whole body and the
model it would go to. It must never give one key's answer to another.
"""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import orjson

MAX_BYTES = 64 << 20
TTL_S = 3600.0
MAX_SHARE = 16
"""No answer takes more than this part of the whole."""

_IRRELEVANT = frozenset({"idempotency_key", "stream", "timeout_seconds", "cache_strategy", "batch_mode"})


def cache_key(owner: str, model: str, document: dict[str, Any]) -> str:
    rest = {name: value for name, value in document.items() if name not in _IRRELEVANT}
    text = orjson.dumps([owner, model, rest], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(text).hexdigest()


class AnswerCache:
    def __init__(
        self, *, max_bytes: int = MAX_BYTES, ttl_s: float = TTL_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._ttl = ttl_s
        self._clock = clock
        self._bytes = 0
        self._answers: OrderedDict[str, tuple[bytes, float]] = OrderedDict()

    def get(self, key: str) -> dict[str, Any] | None:
        found = self._answers.get(key)
        if found is None:
            return None
        if found[1] <= self._clock():
            self._forget(key)
            return None
        self._answers.move_to_end(key)
        answer: dict[str, Any] = orjson.loads(found[0])
        return answer

    def put(self, key: str, answer: dict[str, Any]) -> None:
        data = orjson.dumps(answer)
        if len(data) > self._max_bytes // MAX_SHARE:
            return
        self._forget(key)
        self._answers[key] = (data, self._clock() + self._ttl)
        self._bytes += len(data)
        while self._bytes > self._max_bytes:
            self._forget(next(iter(self._answers)))

    def _forget(self, key: str) -> None:
        old = self._answers.pop(key, None)
        if old is not None:
            self._bytes -= len(old[0])
