"""`openai` for Node, behind TLS."""

from __future__ import annotations

import pytest

from tests.interop.conftest import Run, scenarios


@pytest.mark.parametrize("scenario", scenarios("openai_node.mjs"))
def test_openai_node(run: Run, scenario: str):
    run("openai_node.mjs", scenario)
