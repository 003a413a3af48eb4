"""A LiteLLM proxy to compare with: installed into an environment of its own, started over the same stub vendor.

The environment is made from `litellm.txt` at the first run, under `benchmarks/.envs/`. The proxy runs with its
default settings, a master key and no database, which is how it is cheapest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import machine

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "litellm.txt"
ENVIRONMENT = HERE / ".envs" / "litellm"
KEY = "sk-benchmark"
INSTALL_S = 900.0
READY_S = 120.0


class ProxyFailed(RuntimeError):
    """It could not be installed, or did not become ready; the message ends with its log."""


def version() -> str:
    return REQUIREMENTS.read_text().partition("==")[2].split()[0]


def install() -> None:
    """Make the environment; nothing when it is there and as new as its requirements. Raises `ProxyFailed`."""
    ready = ENVIRONMENT / "ready"
    if ready.exists() and ready.stat().st_mtime >= REQUIREMENTS.stat().st_mtime:
        return
    pip = [str(ENVIRONMENT / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", str(ENVIRONMENT)], [*pip, "-r", str(REQUIREMENTS)]):
        run = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_S)
        if run.returncode:
            raise ProxyFailed(f"LiteLLM cannot be installed:\n{run.stderr[-2000:]}")
    ready.touch()


@contextmanager
def litellm_proxy(vendor_port: int, port: int, cores: Sequence[int], models: Sequence[str] = ("m",)) -> Iterator[int]:
    """Start one on `port` that serves `models` from the stub, kept on `cores`; its pid. Raises `ProxyFailed`."""
    behind = f'api_base: "http://127.0.0.1:{vendor_port}/v1", api_key: none'
    listed = "".join(f"  - {{model_name: {m}, litellm_params: {{model: openai/{m}, {behind}}}}}\n" for m in models)
    with tempfile.TemporaryDirectory(prefix="litellm-bench-") as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(f"model_list:\n{listed}general_settings: {{master_key: {KEY}}}\n")
        command = [str(ENVIRONMENT / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1"]
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "HOME": folder}
        log = Path(folder) / "log"
        mine = machine.available_cores()
        machine.pin(cores)
        try:
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [*command, "--port", str(port)], cwd=folder, env=environ, stdout=output, stderr=output
                )
        finally:
            machine.pin(mine)
        try:
            _wait_ready(process, port, log)
            yield process.pid
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + READY_S
    while time.monotonic() < until and process.poll() is None:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health/liveliness", timeout=2)
            return
        except OSError:
            time.sleep(0.2)
    raise ProxyFailed(f"LiteLLM did not become ready:\n{log.read_text(errors='replace')[-2000:]}")
