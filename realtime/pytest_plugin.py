"""The pytest plugin that comes with the package: engines of one's own held to their contract.

    def test_my_voice(check_engine):
        check_engine(MyVoice)

or, without a test file, `pytest --realtime-engine my_engines:MyVoice`. It loads with every run of pytest in
an environment that has this package, so nothing of the package is imported before it is used.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("realtime", "realtime: engines of your own").addoption(
        "--realtime-engine",
        action="append",
        default=[],
        metavar="MODULE:CLASS",
        help="hold this engine to its contract, beside the tests; may be repeated",
    )


def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    for spec in config.getoption("--realtime-engine"):
        items.append(EngineItem.from_parent(session, name=f"conformance[{spec}]", spec=spec))


class EngineItem(pytest.Item):
    """`spec`: `module:Class`, made without arguments."""

    def __init__(self, *, spec: str, **rest: Any) -> None:
        super().__init__(**rest)
        self.spec = spec

    def runtest(self) -> None:
        module, colon, name = self.spec.partition(":")
        if not colon:
            raise pytest.UsageError(f"--realtime-engine {self.spec}: write MODULE:CLASS")
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())
        _check(getattr(importlib.import_module(module), name))

    def reportinfo(self) -> tuple[os.PathLike[str] | str, int | None, str]:
        return self.spec, None, self.name


@pytest.fixture
def check_engine() -> Callable[..., None]:
    """`check_engine(make, **abilities)`: an AssertionError says what `make()`, an engine, owes its callers.

    `abilities`: those of `realtime.testing.conformance.Abilities`, such as `tools=False` for a chat model
    without tools, or `speech=...` for a recogniser. Not for use inside an async test: await
    `realtime.testing.conformance.check` there.
    """
    return _check


def _check(make: Callable[[], Any], **abilities: Any) -> None:
    from realtime.testing.conformance import Abilities, check

    asyncio.run(check(make, Abilities(**abilities)))
