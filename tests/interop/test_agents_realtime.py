"""`@openai/agents-realtime` in Node, over a WebSocket."""

from __future__ import annotations

import pytest

from tests.interop.conftest import Run, scenarios


@pytest.mark.parametrize("scenario", scenarios("agents_realtime.mjs"))
def test_agents_realtime(run: Run, scenario: str):
    run("agents_realtime.mjs", scenario)
