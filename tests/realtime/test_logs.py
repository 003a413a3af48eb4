"""The log holds no secret of the settings, whoever wrote the line."""

from __future__ import annotations

import logging

import pytest
from pydantic import SecretStr

from realtime.agents.secrets import Redaction
from realtime.logs import OWN_LOGGERS, _Formatter, configure_logging, secrets_of
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


def test_at_debug_only_the_server_itself_goes_into_detail(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, object] = {}
    monkeypatch.setattr(logging, "basicConfig", asked.update)
    for name in OWN_LOGGERS:
        monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET)
    configure_logging("debug", Settings())
    assert asked["level"] == "INFO", "of every library that is not named"
    assert {logging.getLogger(name).level for name in OWN_LOGGERS} == {logging.DEBUG}
