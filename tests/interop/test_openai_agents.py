"""`openai-agents` for Python: it drops every event that its types do not know."""

from __future__ import annotations

import pytest

from tests.interop.conftest import Run, scenarios


@pytest.mark.parametrize("scenario", scenarios("openai_agents.py"))
def test_openai_agents(run: Run, scenario: str):
    run("openai_agents.py", scenario)
