"""Lines about refused requests: some, then how many more; of calls and errors of the server's own, all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.testclient import TestClient

from realtime import log_limit, problems
from realtime.log_limit import OF_ADDRESS, OF_ALL, WINDOW_S, LogLimit
from signaling.errors import CallError, Full
from token_service.errors import Unauthorized


class Log(logging.Handler):
    """What is written."""

    def __init__(self, clock: Any) -> None:
        super().__init__()
        self.limit = LogLimit(clock)
        self.addFilter(self.limit)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()}")

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


@pytest.fixture
def clock() -> list[float]:
    return [1000.0]


@pytest.fixture
def log(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[Log]:
    handler = Log(lambda: clock[0])
    # Every `uvicorn.Config` of the process has set the levels of uvicorn's loggers for all.
    loggers = [logging.getLogger(name) for name in (None, "uvicorn", "uvicorn.error")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.INFO)
        monkeypatch.setattr(logger, "propagate", True)
    loggers[0].addHandler(handler)
    yield handler
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    loggers[0].removeHandler(handler)


def refuse(kind: str, address: str, times: int = 1) -> None:
    for _ in range(times):
        logging.getLogger("realtime.problems").info("%s %s", kind, address, extra={log_limit.REFUSED: (kind, address)})


def test_of_one_address_some_are_written_and_then_how_many_more(log: Log, clock: list[float]) -> None:
    refuse("a", "192.0.2.1", OF_ADDRESS + 1000)
    assert log.take() == ["INFO a 192.0.2.1"] * OF_ADDRESS
    refuse("a", "192.0.2.2")
    refuse("b", "192.0.2.1")
    assert log.take() == ["INFO a 192.0.2.2", "INFO b 192.0.2.1"], "others are still heard of"
    clock[0] += WINDOW_S
    refuse("a", "192.0.2.1")
    assert log.take() == ["INFO 1000 more a in 10 s are not in the log", "INFO a 192.0.2.1"]
    clock[0] += WINDOW_S
    refuse("a", "192.0.2.1")
    assert log.take() == ["INFO a 192.0.2.1"]


def test_however_many_addresses_there_are_log_and_memory_stay_small(log: Log) -> None:
    for number in range(1000):
        refuse("a", f"10.0.{number >> 8}.{number & 255}")
    assert len(log.take()) == OF_ALL
    assert len(log.limit._written) <= OF_ALL + 1
    refuse("b", "2001:db8::1", OF_ADDRESS)
    refuse("b", "2001:db8::2")
    assert len(log.take()) == OF_ADDRESS, "one network"


async def test_when_it_is_over_it_is_told_though_nothing_else_happens(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_limit, "WINDOW_S", 0.05)
    refuse("a", "192.0.2.1", OF_ADDRESS + 7)
    async with asyncio.timeout(5):
        while not any("7 more a" in line for line in log.lines):  # noqa: ASYNC110 - a log tells nobody
            await asyncio.sleep(0.01)


def test_calls_and_errors_are_all_written(log: Log) -> None:
    for _ in range(100):
        logging.getLogger("realtime.live").info("call started")
        logging.getLogger("realtime.problems").warning("POST /v1/ai/chat: 502")
        logging.getLogger("uvicorn.error").error("it broke")
    assert len(log.take()) == 300


def test_what_uvicorn_says_of_garbage_is_limited_by_the_line(log: Log, clock: list[float]) -> None:
    for _ in range(100):
        logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert len(log.take()) == OF_ADDRESS
    clock[0] += WINDOW_S
    refuse("a", "192.0.2.1")
    assert log.take()[0] == 'WARNING 90 more lines "Invalid HTTP request received." in 10 s are not in the log'


ERRORS = {
    "401": Unauthorized(),
    "503": Full(1.0),
    "502": CallError(502, "vendor", "It is down."),
    "500": RuntimeError("a mistake of ours"),
}


def test_requests_that_are_refused_are_limited_by_status_and_our_own_errors_are_not(log: Log) -> None:
    app = FastAPI()

    @app.get("/{which}")
    async def fail(request: Request, which: str) -> None:
        raise ERRORS[which]

    problems.install(app)
    client = TestClient(app)
    for which in ERRORS:
        for _ in range(OF_ADDRESS + 5):
            assert client.get(f"/{which}").status_code == int(which)
    written = [line.split()[3] for line in log.take() if "request_id" in line]
    assert {which: written.count(which) for which in ERRORS} == {
        "401": OF_ADDRESS,
        "503": OF_ADDRESS,
        "502": OF_ADDRESS + 5,
        "500": OF_ADDRESS + 5,
    }
