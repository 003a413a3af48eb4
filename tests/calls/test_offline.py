"""A call with every network but loopback taken away: `realtime serve` and `realtime talk`, as a user runs them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from realtime.client.talk import read_audio
from tests.calls.conftest import HOW_ARE_YOU
from tests.calls.server import ROOT
from tests.media.webrtc import rms

pytest.importorskip("pocketsphinx", reason="exact words need the extra `local`")

UNSHARE = (
    ["unshare", "--net"] if hasattr(os, "geteuid") and os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
)

GUARD = '''
"""Refuses every socket that would leave this machine; uvloop, which asks nobody, is not to be found."""
import errno, ipaddress, sys

sys.modules["uvloop"] = None

def guard(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        if isinstance(address, tuple) and not is_loopback(address[0]):
            raise OSError(errno.ENETUNREACH, "only loopback here")
    elif event == "socket.getaddrinfo" and arguments[0] and not is_loopback(arguments[0]):
        raise OSError(errno.ENETUNREACH, "only loopback here")

def is_loopback(host):
    host = host.decode() if isinstance(host, bytes) else host
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

sys.addaudithook(guard)
'''


def namespace_permitted() -> bool:
    try:
        return subprocess.run([*UNSHARE, "true"], capture_output=True, timeout=10).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def hold_call(folder: Path, prefix: list[str], environ: dict[str, str]) -> dict[str, Any]:
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "tests.calls.offline", str(folder), str(HOW_ARE_YOU)],
        cwd=ROOT,
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def test_a_whole_call_without_any_network_but_loopback(tmp_path: Path):
    if namespace_permitted():
        result = hold_call(tmp_path, UNSHARE, {})
    else:
        # The next best: the processes refuse themselves what leaves the machine.
        guard = tmp_path / "guard"
        guard.mkdir()
        (guard / "sitecustomize.py").write_text(GUARD)
        path = os.pathsep.join(part for part in (str(guard), os.environ.get("PYTHONPATH")) if part)
        result = hold_call(tmp_path, [], {"PYTHONPATH": path})
    assert result["refused"], "the network was there after all"
    assert result["status"] == 0, result
    assert any(re.fullmatch("you: .* today", line) for line in result["printed"].splitlines())
    assert any(line.startswith("bot: ") for line in result["printed"].splitlines())
    answer = read_audio(tmp_path / "answer.wav")
    assert len(answer) > 24_000
    assert rms(answer) > 500
    assert "Traceback" not in result["log"]
    assert "ERROR" not in result["log"]
