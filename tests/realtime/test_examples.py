"""What stands in examples/ does what it says, run as a reader would run it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def pytest_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)


def test_engines_of_ones_own_are_held_to_their_contract_by_the_plugin(tmp_path: Path) -> None:
    ran = pytest_in(EXAMPLES / "own-engines", "--realtime-engine", "my_engines:Beeps", ".")
    assert ran.returncode == 0, ran.stdout
    assert "4 passed" in ran.stdout
    (tmp_path / "mute.py").write_text(
        (EXAMPLES / "own-engines" / "my_engines.py").read_text().replace("yield SpeechChunk(", "SpeechChunk(")
    )
    ran = pytest_in(tmp_path, "--realtime-engine", "mute:Beeps")
    assert ran.returncode == 1


def test_an_agents_own_tests_call_it_in_virtual_time() -> None:
    ran = pytest_in(EXAMPLES.parent, "examples/booking", "examples/own-engines")
    assert ran.returncode == 0, ran.stdout
    assert "5 passed" in ran.stdout
