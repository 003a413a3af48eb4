"""A server to measure: `realtime serve` as its own process, on loopback, with a fresh data folder.

It knows nothing of the caller's environment: no settings file, no key and no vendor but those
given here. Whatever it wrote to its log is shown when it does not come up.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine

READY_S = 30.0
"""Far beyond what a start may take: this is a failure, not a measurement."""
STOP_S = 10.0
_POLL_S = 0.002
_FOREIGN = ("REALTIME_", "INFRAI_", "OPENAI_", "TWILIO_")
"""Prefixes of variables that would change what is measured."""


class ServerFailed(RuntimeError):
    """It did not become ready; the message ends with its log."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running one. `ready_s`: from starting the process to the first 200 of `/readyz`."""

    pid: int
    url: str
    api_key: str
    ready_s: float
    log: Path

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])


@contextmanager
def serve(
    *,
    engines: str | None = "instant",
    config: str = "",
    cores: Sequence[int] = (),
    bot: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Start a server, wait until it accepts calls, and stop it in the end. Raises `ServerFailed`.

    `engines=None` runs those that a plain `realtime serve` does. `config`: the text of its settings
    file. `cores`: where it has to stay. `bot`: a file with agents. `environ`: further variables.
    """
    with tempfile.TemporaryDirectory(prefix="realtime-bench-") as folder:
        home = Path(folder)
        settings = home / "bench.toml"
        settings.write_text(config)
        api_key = f"ifr_pk_proj_{secrets.token_urlsafe(24)}"
        port = free_port()
        command = [_executable(), "serve", "--host", "127.0.0.1", "--port", str(port), "--config", str(settings)]
        command += ["--engines", engines] if engines else []
        command += [str(bot)] if bot else []
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
        environment |= {"REALTIME_DATA": str(home / "data"), "REALTIME_API_KEY": api_key, **(environ or {})}
        log = home / "log"
        with log.open("wb") as output:
            began = time.monotonic()
            process = _start(command, home, environment, output.fileno(), cores)
        try:
            _wait_ready(process, port, log)
            ready_s = time.monotonic() - began
            yield Server(process.pid, f"http://127.0.0.1:{port}", api_key, ready_s, log)
        finally:
            _stop(process)


def _executable() -> str:
    """The command of the environment that this Python belongs to."""
    name = "realtime.exe" if os.name == "nt" else "realtime"
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        raise ServerFailed(f"{path} is missing: install the project into this environment")
    return str(path)


def _start(
    command: list[str], folder: Path, environment: dict[str, str], output: int, cores: Sequence[int]
) -> subprocess.Popen[bytes]:
    mine = machine.available_cores()
    machine.pin(cores)
    try:
        return subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    finally:
        machine.pin(mine)


def free_port() -> int:
    """One that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _wait_ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailed(f"the server ended with {process.returncode}:\n{_tail(log)}")
        if _is_ready(port):
            return
        time.sleep(_POLL_S)
    raise ServerFailed(f"the server was not ready after {READY_S:.0f} s:\n{_tail(log)}")


def _is_ready(port: int) -> bool:
    """By a bare socket: an HTTP client's own start would be measured too."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.settimeout(READY_S)
            connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            return b" 200 " in connection.recv(64)
    except OSError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-40:])
