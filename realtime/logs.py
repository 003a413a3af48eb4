"""The log: one plain line an entry on stderr, without any secret of the settings, whatever library wrote it, and
with a bounded number of lines about requests that are refused (`log_limit`)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping

from pydantic import BaseModel, SecretStr

from realtime.agents.secrets import Redaction
from realtime.log_limit import LogLimit

OWN_LOGGERS = ("realtime", "signaling", "media", "token_service")
"""Only these go into detail at DEBUG. Libraries would write down what no redaction knows: tokens in headers, the
passwords of offers, and what callers say."""

QUIET_LOGGERS = ("aioice", "aiortc", "httpx2", "httpcore2", "uvicorn.error")
"""They say in INFO what only their own developers want to know."""


class _Formatter(logging.Formatter):
    """An error of a library may quote what it was given."""

    def __init__(self, redact: Redaction) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s %(message)s")
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        return self._redact(super().format(record))


def configure_logging(level: str, settings: BaseModel) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(Redaction(secrets_of(settings))))
    handler.addFilter(LogLimit())
    logging.basicConfig(level="INFO" if level == "debug" else level.upper(), handlers=[handler], force=True)
    if level == "debug":
        for name in OWN_LOGGERS:
            logging.getLogger(name).setLevel(logging.DEBUG)
    else:
        for name in QUIET_LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)


def secrets_of(value: object) -> Iterator[str]:
    """Every secret that settings hold, however deep."""
    if isinstance(value, SecretStr):
        yield value.get_secret_value()
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from secrets_of(getattr(value, name))
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from secrets_of(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from secrets_of(one)
