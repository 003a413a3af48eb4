"""Unmodified clients of OpenAI's Realtime API, each in its own environment, against a real server process.

Drivers (`drivers/`) run inside those environments: every public function of one is a scenario, told
where the server is by the environment, and writes the server events it got to a record. The records
are checked last, against everything these clients publish about their events.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from media import g711
from media.resample import Resampler
from realtime import self_signed
from realtime.client.talk import read_audio
from tests.calls.server import API_KEY, Server

HERE = Path(__file__).parent
DRIVERS = HERE / "drivers"
ENVS = HERE / ".envs"
AUDIO = Path(__file__).parents[1] / "audio"
CLIPS = {"weather": "synth_flite_rms_weather_london.wav", "how_are_you": "synth_flite_slt_how_are_you.wav"}
SCENARIO_S = 60.0
BUILD_S = 600.0


def scenarios(driver: str) -> list[str]:
    """The names of a driver's public functions."""
    text = (DRIVERS / driver).read_text(encoding="utf-8")
    return re.findall(r"^(?:async def|export async function) ([a-z]\w*)\(", text, re.MULTILINE)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The records are judged when all of them are there."""
    items.sort(key=lambda item: item.path.name == "test_records.py")


@pytest.fixture(scope="session")
def environment() -> Callable[[str], Path]:
    """The folder of the environment called so, made first if need be."""

    def make(name: str) -> Path:
        command = ["make", "-s", "-C", str(HERE), f".envs/{name}/ready", f"PYTHON={sys.executable}"]
        subprocess.run(command, check=True, timeout=BUILD_S)
        return ENVS / name

    return make


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of JSON lines for each scenario: the server events that its client got."""
    return tmp_path_factory.mktemp("records")


@pytest.fixture(scope="session")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips with a second of silence around them: NAME.pcm (24 kHz), NAME.ulaw, NAME.wav (48 kHz)."""
    folder = tmp_path_factory.mktemp("sounds")
    for name, file in CLIPS.items():
        silence = np.zeros(24_000, np.int16)
        pcm = np.concatenate([silence, read_audio(AUDIO / file), silence])
        (folder / f"{name}.pcm").write_bytes(pcm.tobytes())
        (folder / f"{name}.ulaw").write_bytes(g711.ulaw_encode(Resampler(24_000, 8_000).push(pcm)))
    return folder


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For clients that insist on TLS; its key lies beside it with the suffix .key."""
    return self_signed.ensure(tmp_path_factory.mktemp("tls"), [])[0]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server")) as running:
        yield running


Run = Callable[[str, str], str]


@pytest.fixture
def run(server: Server, environment: Callable[[str], Path], records: Path, sounds: Path, certificate: Path) -> Run:
    """Run one scenario of a driver in its environment. Fails with what the driver wrote."""

    def go(driver: str, scenario: str) -> str:
        python = driver.endswith(".py")
        name = driver.partition(".")[0]
        folder = environment("-".join(name.split("_")[:2]) if python else "node")
        # Node looks for packages where the script lies.
        script = DRIVERS / driver if python else Path(shutil.copy(DRIVERS / driver, folder))
        interpreter = str(folder / "bin" / "python") if python else "node"
        variables = {name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "PYTHON"))}
        variables |= {
            "BASE_URL": f"{server.url}/v1",
            "API_KEY": API_KEY,
            "SOUNDS": str(sounds),
            "NODE_EXTRA_CA_CERTS": str(certificate),
            "RECORD": str(records / f"{name}-{scenario}.jsonl"),
        }
        done = subprocess.run(
            [interpreter, str(script), scenario], env=variables, capture_output=True, text=True, timeout=SCENARIO_S
        )
        assert done.returncode == 0, f"{driver} {scenario}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    return go
