"""`openai` for Python: only base URL and key differ from its documentation."""

from __future__ import annotations

import pytest

from tests.interop.conftest import Run, scenarios


@pytest.mark.parametrize("scenario", scenarios("openai_python.py"))
def test_openai_python(run: Run, scenario: str):
    run("openai_python.py", scenario)
