"""What signalling raises besides `signaling.sdp.OfferError`, typed so that others can render it."""

from __future__ import annotations


class Full(Exception):
    """No further call is taken for now; `retry_after` in seconds, `reason` for the log."""

    def __init__(self, retry_after: float, reason: str = "full") -> None:
        super().__init__(f"{reason}; retry after {retry_after:g} s")
        self.retry_after = retry_after
        self.reason = reason


class CallError(Exception):
    """A request about a call that cannot be served; `status` is the HTTP status it deserves.

    `message` is for the caller, `reason` for the log only; `retry_after` in seconds.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        reason: str = "",
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.reason = reason
        self.headers = headers or {}
