"""A whole call with no network but loopback; run as a program, in an environment that has no more.

`python -m tests.calls.offline FOLDER WAV`: starts a server, talks to it with `realtime talk`, and prints
what came of it as JSON. Inside a network namespace of its own it switches loopback on first.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

from tests.calls.server import API_KEY, ROOT, Server

SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1

ELSEWHERE = ("192.0.2.1", 9)
"""An address that is nobody's (RFC 5737)."""


def switch_loopback_on() -> None:
    """On Linux, where a new network namespace has it switched off."""
    if not sys.platform.startswith("linux"):
        return
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        name = struct.pack("16sH14x", b"lo", 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(sock, SIOCGIFFLAGS, name), 16)
        if not flags & IFF_UP:
            fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", flags | IFF_UP))


def elsewhere_is_refused() -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.connect(ELSEWHERE)
        return False
    return True


def main(folder: Path, question: Path) -> None:
    switch_loopback_on()
    answer = folder / "answer.wav"
    config = '[network]\ninterfaces = ["127.0.0.1"]\n'
    with Server(folder, config=config) as server:
        talk = [sys.executable, "-m", "realtime.cli", "talk", "--wav", str(question), "--out", str(answer)]
        done = subprocess.run(
            [*talk, "--url", server.url],
            cwd=ROOT,
            env={**os.environ, "REALTIME_API_KEY": API_KEY},
            capture_output=True,
            text=True,
            timeout=60,
        )
    result = {
        "refused": elsewhere_is_refused(),
        "status": done.returncode,
        "printed": done.stdout + done.stderr,
        "log": server.log(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
