"""Real calls over loopback. The two servers here serve every module that wants no settings of its own."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import aioice.ice
import pytest

from tests.calls.server import RUNNING, Server

AUDIO = Path(__file__).parents[1] / "audio"
WEATHER = AUDIO / "synth_flite_rms_weather_london.wav"
HOW_ARE_YOU = AUDIO / "synth_flite_slt_how_are_you.wav"
"""Its first words are misheard in one of twenty ways in which packets may fall upon it; "today" hardly ever."""

LOG_LINES = 60

UNGUARDED = """
[agents.unguarded]
echo_guard = false
"""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the servers said goes with a failure."""
    report = yield
    if report.failed:
        for server in RUNNING:
            report.sections.append((f"log of {server.url}", "\n".join(server.log().splitlines()[-LOG_LINES:])))
    return report


@pytest.fixture(scope="session", autouse=True)
def stock_on_loopback() -> Iterator[None]:
    """Stock aiortc callers gather 127.0.0.1, which aioice would leave out; our own peers do not ask it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the embedded engines."""
    with Server(tmp_path_factory.mktemp("server"), config=UNGUARDED) as running:
        yield running


@pytest.fixture(scope="session")
def instant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With engines that answer at once: five seconds of tone."""
    with Server(tmp_path_factory.mktemp("instant"), "--engines", "instant") as running:
        yield running
