"""What this room raises when a caller may not do what they asked, typed so that others can render it.

`AuthError` is the base. An error carries what the caller may know (`code`, `message`) apart from what
only the log may know (`reason`), and the response headers it must keep when it is rendered (CORS: a
browser shows its page nothing of an answer without them). Nothing here knows HTTP status codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar


class AuthError(Exception):
    """`code`: short snake_case name; `message`: one sentence for the caller; `reason`: for the log, never sent."""

    default_code: ClassVar[str] = "auth_error"
    default_message: ClassVar[str] = "The request is not allowed."

    def __init__(self, message: str | None = None, *, code: str | None = None, reason: str = "") -> None:
        self.message = message or self.default_message
        self.code = code or self.default_code
        self.reason = reason
        self.headers: dict[str, str] = {}
        super().__init__(self.message)

    def with_headers(self, headers: Mapping[str, str]) -> None:
        """Headers that the answer must carry whatever it says."""
        self.headers.update(headers)


class Unauthorized(AuthError):
    """No credentials, or none that are valid."""

    default_code = "invalid_token"
    default_message = "The token is not valid."


class Forbidden(AuthError):
    """Valid credentials that do not allow this."""

    default_code = "forbidden"
    default_message = "This key does not allow that."


class TooManyRequests(AuthError):
    """Over a limit; `retry_after` in seconds."""

    default_code = "rate_limit_exceeded"
    default_message = "Too many requests; try again later."

    def __init__(
        self, retry_after: float, message: str | None = None, *, reason: str = "", code: str | None = None
    ) -> None:
        super().__init__(message, reason=reason, code=code)
        self.retry_after = retry_after


class InvalidRequest(AuthError):
    """The request says something that cannot be; `param` names the field ("" when it is the whole body)."""

    default_code = "invalid_value"
    default_message = "The request is not valid."

    def __init__(self, param: str, message: str, *, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.param = param


class RequestTooLarge(InvalidRequest):
    """The body is over its bound; it was not parsed."""

    default_code = "request_too_large"
