"""What can go wrong for a client of the server."""

from __future__ import annotations


class ConnectError(Exception):
    """The server could not be reached, or the call did not come up; the message says what to check."""


class ApiError(Exception):
    """The server refused: `status` is HTTP's, `code` the short name, `request_id` what its log knows it by."""

    def __init__(self, status: int, code: str, message: str, request_id: str | None = None) -> None:
        super().__init__(f"{message} ({status} {code}{f', request {request_id}' if request_id else ''})")
        self.status = status
        self.code = code
        self.message = message
        self.request_id = request_id


class CallEnded(Exception):
    """The call is over: `reason` as the leg names it (`hangup`, `remote_closed`, `inactivity`, …)."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the call has ended: {reason}")
        self.reason = reason
