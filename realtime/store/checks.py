"""What every store refuses, in one place, so that all of them refuse the same: keys, values, expiry, counters.

Pure functions that raise `StoreError`; they touch no data.
"""

from __future__ import annotations

import math
import re

from realtime.store.base import MAX_KEY_CHARS, MAX_VALUE_BYTES, StoreError

MAX_SCAN = 10_000
MAX_TTL_SECONDS = 10 * 365 * 24 * 3600.0
"""Ten years; a longer expiry is a mistake in a unit."""
_KEY = re.compile(r"[\x21-\x7e]+")
_COUNT = re.compile(rb"[0-9]{1,18}")


def check_key(key: str) -> None:
    if len(key) > MAX_KEY_CHARS or not _KEY.fullmatch(key):
        raise StoreError(f"A key is 1 to {MAX_KEY_CHARS} visible ASCII characters.")


def check_prefix(prefix: str) -> None:
    if prefix:
        check_key(prefix)


def check_value(value: bytes) -> None:
    if not isinstance(value, bytes):
        raise StoreError("A value is bytes.")
    if len(value) > MAX_VALUE_BYTES:
        raise StoreError(f"A value of {len(value)} bytes; at most {MAX_VALUE_BYTES} are kept.")


def check_ttl(ttl: float | None) -> None:
    if ttl is not None and not (math.isfinite(ttl) and 0 < ttl <= MAX_TTL_SECONDS):
        raise StoreError(f"A ttl is over 0 and at most {MAX_TTL_SECONDS:.0f} seconds, not {ttl}.")


def check_limit(limit: int) -> None:
    if not 1 <= limit <= MAX_SCAN:
        raise StoreError(f"A scan returns 1 to {MAX_SCAN} entries, not {limit}.")


def next_count(key: str, value: bytes | None) -> int:
    """A counter's next value, from what is stored under it (ASCII digits)."""
    if value is None:
        return 1
    if not _COUNT.fullmatch(value):
        raise StoreError(f"{key} holds something that is no counter.")
    return int(value) + 1
