"""What the Dockerfile does, done in a clean Debian: it builds, runs as its own user, is healthy, holds a call.

No container engine is needed, but root, debootstrap and a network. Takes two minutes.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from realtime.client import connect
from tests.calls.server import ROOT, free_port
from tests.interop.dockerfile import STEP_S, Stage, build

pytestmark = pytest.mark.timeout(1800)
READY_S = 60.0


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        pytest.skip("building the image's root needs debootstrap and root")
    folder = tmp_path_factory.mktemp("image")
    folder.chmod(0o755)
    folder.parent.chmod(0o755)
    base = folder / "debian"
    subprocess.run(["debootstrap", "--variant=minbase", "bookworm", str(base)], check=True, timeout=STEP_S, stdout=-3)
    return build(ROOT / "Dockerfile", base, folder)


@pytest.fixture(scope="module")
def container(image: Stage) -> Iterator[tuple[Stage, dict[str, str], int]]:
    """The image running: the stage, its environment, and the process id."""
    port = free_port()
    env = {"REALTIME_PORT": str(port), "REALTIME_PUBLIC_ADDRESS": "127.0.0.1", "REALTIME_UDP_PORTS": "51000-51019"}
    log = (image.root.parent / "log").open("wb")
    process = subprocess.Popen(image.enter([*image.entrypoint, *image.command], env), stdout=log, stderr=log)
    try:
        wait_until_healthy(image, env, process)
        yield image, env, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) in (0, -signal.SIGTERM)
        log.close()


def healthy(image: Stage, env: dict[str, str]) -> bool:
    return subprocess.run(image.enter(image.health, env), capture_output=True, timeout=10, check=False).returncode == 0


def wait_until_healthy(image: Stage, env: dict[str, str], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_S
    while not healthy(image, env):
        assert process.poll() is None, (image.root.parent / "log").read_text()
        assert time.monotonic() < deadline, (image.root.parent / "log").read_text()


def test_it_runs_as_nobody_in_particular(container: tuple[Stage, dict[str, str], int]) -> None:
    image, _, pid = container
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    assert "\nUid:\t10001\t10001\t10001\t10001\n" in status
    assert (image.root / "data/development_key").stat().st_uid == 10001
    assert (image.root / "usr/share/doc/infrai-realtime/NOTICE").exists()


def test_espeak_is_debians_and_not_in_the_python_environment(container: tuple[Stage, dict[str, str], int]) -> None:
    image, _, _ = container
    assert (image.root / "usr/bin/espeak-ng").exists()
    assert not list((image.root / "opt/realtime").rglob("*espeak*ng*loader*"))


def test_it_prints_links_to_the_page(container: tuple[Stage, dict[str, str], int]) -> None:
    image, env, _ = container
    done = subprocess.run(
        image.enter(["realtime", "link"], env), capture_output=True, text=True, timeout=30, check=True
    )
    assert "/#link=" in done.stdout
    assert done.stdout.strip().partition("#")[0] in (image.root.parent / "log").read_text()


async def test_it_holds_a_call(container: tuple[Stage, dict[str, str], int]) -> None:
    image, env, _ = container
    key = (image.root / "data/development_key").read_text(encoding="ascii").strip()
    async with connect(f"http://127.0.0.1:{env['REALTIME_PORT']}", api_key=key) as call:
        await call.say("hello")
        done = await call.wait_for("response.done", timeout=30)
        assert done["response"]["status"] == "completed"
        async for pcm, _ in call.audio():
            if abs(pcm).max() > 1000:
                break
