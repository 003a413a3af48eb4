"""The watchdog names the line that holds up the event loop, once, and knows how late the loop runs."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator

import pytest

from realtime.observe.watchdog import Watchdog


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110, the thread of the watchdog sets no event
            await asyncio.sleep(0.01)


@pytest.fixture
def watchdog() -> Iterator[Watchdog]:
    made = Watchdog()
    yield made
    made.stop()


def a_blocking_tool() -> None:
    time.sleep(0.4)


async def test_what_holds_up_the_loop_is_logged_once_with_file_and_line(
    watchdog: Watchdog, caplog: pytest.LogCaptureFixture
):
    watchdog.start()
    with caplog.at_level(logging.WARNING, "realtime.watchdog"):
        await asyncio.sleep(0.1)
        a_blocking_tool()
        await until(lambda: "goes on" in caplog.text)
    blamed = [record for record in caplog.records if "a_blocking_tool" in record.getMessage()]
    assert len(blamed) == 1
    first = blamed[0].getMessage().splitlines()[0]
    line = a_blocking_tool.__code__.co_firstlineno + 1
    assert f"{__file__}:{line} in a_blocking_tool" in first


async def test_the_lag_is_unknown_at_first_and_then_that_of_the_late_beats(watchdog: Watchdog):
    watchdog.start()
    assert watchdog.lag_ms == 0
    for _ in range(10):
        time.sleep(0.05)  # noqa: ASYNC251, which is what is measured
        await asyncio.sleep(0.021)
    await until(lambda: watchdog.lag_ms > 20)


async def test_it_stops_and_starts_again(watchdog: Watchdog):
    for _ in range(2):
        watchdog.start()
        watchdog.start()
        watchdog.stop()
        watchdog.stop()
