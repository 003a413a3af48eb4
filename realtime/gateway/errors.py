"""What goes wrong in a one-shot request, as a status and an `error` member.

`GatewayError` is what the endpoints raise themselves. Errors of engines become one here: their own words
are trimmed and hold no secrets already; a vendor that refuses our key is never the caller's 401.
"""

from __future__ import annotations

from realtime.adapters.base import EngineError
from realtime.adapters.decoding import FileRefused
from realtime.adapters.routing import NoModel
from realtime.problems import Problem, problem_of


class GatewayError(Exception):
    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        retry_after: float | None = None,
        retryable: bool | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.retry_after = retry_after
        self.retryable = retryable

    def problem(self) -> Problem:
        return Problem(
            self.status,
            self.code,
            self.message,
            param=self.param,
            retry_after=self.retry_after,
            retryable=self.retryable,
        )


@problem_of.register
def _(error: GatewayError) -> Problem:
    return error.problem()


@problem_of.register
def _(error: NoModel) -> Problem:
    status = 404 if error.code == "model_not_found" else 422
    return Problem(status, error.code, f"{error}.", param=error.param)


@problem_of.register
def _(error: FileRefused) -> Problem:
    if error.code == "busy":
        return Problem(503, "busy", f"{error}.", retry_after=1.0)
    return Problem(413 if error.too_large else 422, error.code, f"{error}.")


_STATUS: dict[str, tuple[int, str]] = {
    "bad_request": (422, "vendor_refused"),
    "text_too_long": (422, "text_too_long"),
    "audio_overflow": (413, "audio_too_long"),
    "unknown_format": (422, "unknown_format"),
    "unreadable": (422, "unreadable"),
    "no_image": (422, "no_image"),
    "image_too_large": (413, "image_too_large"),
    "file_too_complex": (413, "file_too_complex"),
    "auth_failed": (502, "vendor_auth"),
    "not_found": (502, "vendor_not_found"),
    "rate_limited": (429, "vendor_rate_limited"),
    "overloaded": (503, "vendor_overloaded"),
    "timeout": (504, "vendor_timeout"),
    "batch_expired": (504, "batch_expired"),
    "batch_failed": (502, "batch_failed"),
    "deadline": (504, "deadline_exceeded"),
    "recogniser_busy": (503, "recogniser_busy"),
    "busy": (503, "vendor_busy"),
}
"""What is not here is a 502 `vendor_error`."""


@problem_of.register
def _(error: EngineError) -> Problem:
    status, code = _STATUS.get(error.code, (502, "vendor_error"))
    retry_after = error.retry_after if status in (429, 503) else None
    if status in (429, 503) and retry_after is None:
        retry_after = 1.0
    return Problem(status, code, f"{error}.".replace("..", "."), retry_after=retry_after)
