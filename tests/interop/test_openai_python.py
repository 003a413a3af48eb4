"""`openai` for Python: only base URL and key differ from its documentation."""

from __future__ import annotations

import pytest

from tests.interop.conftest import Run, scenarios


@pytest.mark.parametrize("scenario", scenarios("openai_python_turns.py"))
def test_turns(run: Run, scenario: str):
    run("openai_python_turns.py", scenario)


@pytest.mark.parametrize("scenario", scenarios("openai_python_protocol.py"))
def test_protocol(run: Run, scenario: str):
    run("openai_python_protocol.py", scenario)
