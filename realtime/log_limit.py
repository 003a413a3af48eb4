"""How many lines strangers can put into the log: a refused request writes one, and refusals cost a caller nothing.

Of each kind of refusal (by its status, or by the line itself) `OF_ADDRESS` lines of one address and `OF_ALL` of all
together are written in `WINDOW_S`; when that is over, one line says how many more there were. An IPv6 /64 is one
address. What happens to calls, and errors of the server's own, have no limit: a line is limited only where it says so,

    log.info("...", extra={REFUSED: ("requests refused with 401", address)})

or is one of `_ALWAYS`, loggers that say nothing else above DEBUG while the server runs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Final

from token_service.minting import visitor

REFUSED: Final = "refused"
"""The attribute of a record: of what it is one of many, in the plural, and the address that caused it."""
WINDOW_S: Final = 10.0
OF_ADDRESS: Final = 10
OF_ALL: Final = 30

_ALWAYS: Final = frozenset({"realtime.http_protocol", "realtime.slow_readers", "uvicorn.error"})

logger = logging.getLogger(__name__)


class LogLimit(logging.Filter):
    """Of a handler. `clock`: monotonic seconds. Its lines come from the event loop's thread; all others just pass."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._ends_at = float("-inf")
        self._written: Counter[tuple[str, str | None]] = Counter()
        """By kind and address; by kind and None, of all addresses. Only what was written is counted: it is bounded."""
        self._left_out: Counter[tuple[str, int]] = Counter()
        """By kind and level."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.ERROR:
            return True
        refused: tuple[str, str] | None = getattr(record, REFUSED, None)
        if refused is None:
            if record.name not in _ALWAYS:
                return True
            refused = f'lines "{record.msg}"', ""
        return self._may_be_written(refused[0], refused[1] and visitor(refused[1]), record.levelno)

    def _may_be_written(self, kind: str, address: str, level: int) -> bool:
        now = self._clock()
        if now >= self._ends_at:
            self._tell()
            self._ends_at = now + WINDOW_S
        written = self._written
        if written[kind, address] < OF_ADDRESS and written[kind, None] < OF_ALL:
            written[kind, address] += 1
            written[kind, None] += 1
            return True
        if not self._left_out:
            self._tell_later(self._ends_at - now)
        self._left_out[kind, level] += 1
        return False

    def _tell_later(self, seconds: float) -> None:
        try:
            asyncio.get_running_loop().call_later(seconds, self._tell)
        except RuntimeError:
            return  # no loop: it is told with the next line

    def _tell(self) -> None:
        left_out, self._left_out = self._left_out, Counter()
        self._written.clear()
        for (kind, level), count in left_out.items():
            logger.log(level, "%d more %s in %g s are not in the log", count, kind, WINDOW_S)
