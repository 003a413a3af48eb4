"""A server as a user starts it: its own process, its own data folder, a free port on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError

import orjson

ROOT = Path(__file__).parents[2]
API_KEY = "ifr_pk_proj_" + "t" * 32
READY_S = 30.0


def free_port() -> int:
    """One that nobody listens on, below those that the system gives away: none of them is free for long."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


RUNNING: list[Server] = []
"""For the report of a test that fails."""


class Server:
    """`config`: text of a realtime.toml. `prefix`: a command to run it under. `environ`: more variables."""

    def __init__(
        self,
        folder: Path,
        *arguments: str,
        config: str = "",
        prefix: Sequence[str] = (),
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._arguments = arguments
        self._config = config
        self._prefix = prefix
        self._environ = dict(environ or {})
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        toml = self.folder / "realtime.toml"
        toml.write_text(_patient(self._config), encoding="utf-8")
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("REALTIME_", "OPENAI_"))}
        environ |= {"REALTIME_DATA": str(self.folder / "data"), "REALTIME_API_KEY": API_KEY, **self._environ}
        command = [sys.executable, "-m", "realtime.cli", "serve", "--port", str(self.port), "--config", str(toml)]
        self._log = (self.folder / "log").open("wb")
        self._process = subprocess.Popen(
            [*self._prefix, *command, *self._arguments],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        self._wait_until_ready()
        RUNNING.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        assert self._process is not None
        if self._log.closed:
            return
        if self in RUNNING:
            RUNNING.remove(self)
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise AssertionError(f"the server did not stop when told to:\n{self.log()}") from None
        finally:
            self._log.close()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def workers(self, engine: str) -> list[int]:
        """The pids of the worker processes whose engine's name has `engine` in it (Linux)."""
        children = Path(f"/proc/{self.pid}/task").glob("*/children")
        found = []
        for pid in [int(pid) for file in children for pid in file.read_text().split()]:
            with contextlib.suppress(OSError):  # it may have gone meanwhile
                if engine in Path(f"/proc/{pid}/cmdline").read_text():
                    found.append(pid)
        return found

    def log(self) -> str:
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                raise AssertionError(f"the server did not start:\n{self.log()}")
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{self.url}/readyz", timeout=2)
                return
            time.sleep(0.05)
        raise AssertionError(f"the server was not ready in {READY_S} s:\n{self.log()}")

    async def request(
        self, method: str, path: str, body: bytes | None = None, *, credential: str | None = API_KEY, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (lower-case names), body. Header names: `content_type="…"`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if credential is not None:
            named["authorization"] = f"Bearer {credential}"
        request = urllib.request.Request(self.url + path, body, named, method=method)
        return await asyncio.to_thread(_open, request)

    async def token(self, **wish: object) -> dict[str, object]:
        status, _, body = await self.request(
            "POST", "/v1/ai/realtime/token", orjson.dumps(wish), content_type="application/json"
        )
        assert status == 200, body
        answer: dict[str, object] = orjson.loads(body)
        return answer

    async def get(self, path: str) -> Any:
        status, _, body = await self.request("GET", path)
        assert status == 200, body
        return orjson.loads(body)

    async def sessions(self) -> list[dict[str, Any]]:
        """The calls under way."""
        return (await self.get("/v1/ai/realtime/sessions"))["data"]

    async def until_calls(self, count: int, seconds: float = 5.0) -> None:
        """Wait until this many calls are under way."""
        end = time.monotonic() + seconds
        while len(calls := await self.sessions()) != count:
            assert time.monotonic() < end, f"{count} calls were to be left, there are {calls}"
            await asyncio.sleep(0.02)

    async def ended(self, reason: str) -> int:
        """How many calls have ended for this reason since the start, as the metrics have it."""
        _, _, body = await self.request("GET", "/metrics")
        found = re.search(rf'^realtime_calls_ended_total{{reason="{reason}"}} (\S+)$', body.decode(), re.MULTILINE)
        return int(float(found[1])) if found else 0


def _patient(config: str) -> str:
    """Calls are admitted however late the machine that runs the tests makes the event loop."""
    if "loop_lag_ms" in config:
        return config
    head, _, rest = config.partition("[limits]\n")
    return f"{head}\n[limits]\nloop_lag_ms = 10000\n{rest}"


def _open(request: urllib.request.Request) -> tuple[int, dict[str, str], bytes]:
    try:
        with urllib.request.urlopen(request, timeout=15) as response:
            return response.status, {name.lower(): value for name, value in response.headers.items()}, response.read()
    except HTTPError as error:
        return error.code, {name.lower(): value for name, value in error.headers.items()}, error.read()
