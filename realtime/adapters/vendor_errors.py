"""What vendors' refusals mean, by HTTP status, for vendors with SDKs of their own; and their words made safe.

An error text may quote our key, and may be as long as the vendor likes: it is shortened, and neither the
key nor what looks like one is ever part of it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from realtime.adapters.base import EngineError

MAX_MESSAGE = 300
MAX_RETRY_AFTER_S = 3600.0

_SECRET = re.compile(r"(?i)\b(?:sk|pk|rk|ek|key|gsk|xai|aiza)[-_]?[\w*.-]{16,}|bearer\s+\S+")


def of_status(
    engine: str, status: int, text: str, *, key: str = "", headers: Mapping[str, str] | None = None
) -> EngineError:
    """The error that an HTTP status is."""
    if status in (401, 403):
        # What the vendor says here often quotes the key.
        text = f"the address refused the key ({status})"
        return EngineError(f"{engine}: {text}", code="auth_failed", engine=engine, retryable=False)
    wait = _seconds((headers or {}).get("retry-after"))
    codes = {400: "bad_request", 413: "bad_request", 422: "bad_request", 404: "not_found", 408: "timeout",
             409: "busy", 425: "busy", 429: "rate_limited", 503: "overloaded", 504: "timeout",
             529: "overloaded"}  # fmt: skip
    code = codes.get(status, "bad_request" if 400 <= status < 500 else "bad_response")
    retryable = code not in ("bad_request", "not_found")
    return EngineError(
        message(engine, text, key),
        code=code,
        engine=engine,
        retryable=retryable,
        retry_after=wait if retryable else None,
    )


def message(engine: str, text: str, key: str = "") -> str:
    text = " ".join(text[: 4 * MAX_MESSAGE].split())
    if key:
        text = text.replace(key, "***")
    text = _SECRET.sub("***", text)
    return f"{engine}: {text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + '…'}"


def _seconds(header: str | None) -> float | None:
    try:
        seconds = float(header or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds <= MAX_RETRY_AFTER_S else None
