"""The log holds no secret of the settings, whoever wrote the line."""

from __future__ import annotations

import logging

from pydantic import SecretStr

from realtime.agents.secrets import Redaction
from realtime.logs import _Formatter, secrets_of
from realtime.settings import Settings

SECRET = "a-secret/of the tests"


def test_secrets_are_found_however_deep_they_lie_in_the_settings() -> None:
    tool = {"name": "t", "description": "d", "url": "https://x.example", "headers": {"X": SecretStr(SECRET)}}
    agent = {"http_tools": [tool], "mcp": {"m": {"command": ["x"], "environment": {"Y": SecretStr("another-secret")}}}}
    settings = Settings.model_validate({"agents": {"default": agent}})
    assert set(secrets_of(settings)) >= {SECRET, "another-secret"}
    assert list(secrets_of([{"one": SecretStr("x")}])) == ["x"]


def test_neither_a_message_nor_its_traceback_tells_one() -> None:
    formatter = _Formatter(Redaction([SECRET]))
    try:
        raise ValueError(f"it was {SECRET}")
    except ValueError as error:
        record = logging.LogRecord("httpcore2", logging.DEBUG, __file__, 1, "headers %r", ([SECRET.encode()],), None)
        record.exc_info = (type(error), error, error.__traceback__)
    text = formatter.format(record)
    assert "ValueError: it was [secret]" in text
    assert "headers [b'[secret]']" in text
    assert SECRET not in text
