"""A minute of coverage-guided fuzzing of every place where bytes come in from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.calls.server import ROOT
from tests.fuzz.targets import TARGETS

SECONDS = int(os.environ.get("FUZZ_SECONDS", "60"))

pytest.importorskip("atheris", reason='atheris is not installed: pip install -e ".[fuzz]"')


@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_raises_or_takes_over_100_ms(name: str, tmp_path: Path):
    command = [sys.executable, "-m", "tests.fuzz", name, str(SECONDS), str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS + 50)
    found = [path.read_bytes() for path in tmp_path.iterdir() if path.is_file()]
    assert done.returncode == 0, f"{found}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    assert "DONE" in done.stderr, done.stderr[-2000:]
