"""A telephone network on this machine: Debian's kamailio as the registrar, its janus, and its baresip as the phone.

Janus runs with the files of deploy/janus, only the addresses changed. All of them use one address of this machine,
which is not loopback: Janus offers none of those. `Wire` listens to the phone's packets from outside of all of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import ifaddr
import numpy as np
import pytest

from media.audio import Pcm
from media.g711 import ulaw_decode
from tests.calls.server import API_KEY, ROOT, Server, free_port

EXAMPLE = "192.0.2.10"
"""The address in the files of deploy/."""
PHONE_PORTS = (23_000, 23_999)
_ETH_P_ALL = 3
_OUTGOING = 4
"""`PACKET_OUTGOING`: over loopback each packet is seen twice."""


def own_address() -> str:
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            if ip.is_IPv4 and isinstance(ip.ip, str) and not ip.ip.startswith(("127.", "169.254.")):
                return ip.ip
    pytest.skip("this machine has no address but loopback")


def needs(*programs: str) -> None:
    for program in programs:
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            pytest.skip(f"{program} is not installed: make browsers")


@contextmanager
def running(command: list[str], log: Path, **environ: str) -> Iterator[None]:
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **environ}
        )
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def wait_until(condition: Callable[[], object], log: Path, seconds: float = 20) -> None:
    """Fails with what stands in the log."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{log}:\n{log.read_text(errors='replace')[-3000:]}"
        time.sleep(0.02)


def wait_for_text(log: Path, wanted: str, seconds: float = 20) -> None:
    wait_until(lambda: wanted in log.read_text(errors="replace"), log, seconds)


@contextmanager
def registrar(folder: Path, address: str, port: int) -> Iterator[None]:
    text = (ROOT / "tests/interop/sip/kamailio.cfg").read_text().replace(f"{EXAMPLE}:5060", f"{address}:{port}")
    file = folder / "kamailio.cfg"
    file.write_text(text)
    command = ["/usr/sbin/kamailio", "-f", str(file), "-P", str(folder / "pid"), "-Y", str(folder), "-m", "16"]
    with running(command, folder / "kamailio.log"):
        wait_until(lambda: not _is_free(address, port), folder / "kamailio.log")
        yield


@contextmanager
def gateway(folder: Path, address: str, port: int) -> Iterator[None]:
    """Janus as deploy/janus has it; its API on this port."""
    files = folder / "janus"
    files.mkdir()
    for source in (ROOT / "deploy/janus").glob("*.jcfg"):
        text = source.read_text().replace(EXAMPLE, address).replace("= 8188", f"= {port}")
        (files / source.name).write_text(text.replace('"/etc/janus"', f'"{files}"'))
    with running(["janus", "-F", str(files)], folder / "janus.log"):
        wait_until(lambda: _answers(port), folder / "janus.log")
        yield


@contextmanager
def bridge(folder: Path, server: Server, janus_port: int, account: str, *options: str) -> Iterator[None]:
    command = [sys.executable, "-m", "realtime.cli", "bridge", "janus", "--janus", f"ws://127.0.0.1:{janus_port}"]
    command += ["--account", account, "--calls", "3", "--url", server.url, "--key", API_KEY, *options]
    with running(command, folder / "bridge.log", SIP_SECRET="secret"):
        wait_for_text(folder / "bridge.log", "answers 3 calls")
        yield


class Phone:
    """A call by baresip: it says `voice` (8 kHz) and hangs up when told to. Its own recording is in `heard`."""

    def __init__(self, folder: Path, address: str, to: str, voice: Pcm) -> None:
        self._folder = folder
        folder.mkdir()
        with wave.open(str(folder / "voice.wav"), "wb") as file:
            file.setparams((1, 2, 8000, 0, "NONE", ""))
            file.writeframes(voice.tobytes())
        port, self._control = _free_udp_port(address), free_port()
        modules = "".join(f"module {name}.so\n" for name in ("g711", "aufile", "sndfile", "menu", "ctrl_tcp"))
        (folder / "config").write_text(
            f"module_path /usr/lib/baresip/modules\nsip_listen {address}:{port}\n"
            f"audio_source aufile,{folder}/voice.wav\nsnd_path {folder}\nrtp_ports {PHONE_PORTS[0]}-{PHONE_PORTS[1]}\n"
            f"module_tmp account.so\n{modules}ctrl_tcp_listen 127.0.0.1:{self._control}\n"
        )
        (folder / "accounts").write_text(f"<sip:+15550001111@{address}:{port}>;regint=0;audio_codecs=PCMU/8000/1\n")
        (folder / "contacts").write_text("")
        self._to = to
        self.log = folder / "log"

    def dial(self) -> None:
        output = self.log.open("wb")
        command = ["baresip", "-f", str(self._folder), "-e", f"d {self._to}", "-v"]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        output.close()

    def press(self, key: str) -> None:
        """A key, told in the audio stream (RFC 4733)."""
        command = json.dumps({"command": "sndcode", "params": key})
        with socket.create_connection(("127.0.0.1", self._control), 5) as control:
            control.sendall(f"{len(command)}:{command},".encode())
            answer = b""
            while b'"response"' not in answer:
                answer += (piece := control.recv(1000))
                assert piece, answer
        assert b'"ok":true' in answer, answer

    def hang_up(self) -> None:
        """BYE, and out."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)

    def close(self) -> None:
        self.hang_up()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()

    def heard(self) -> Pcm:
        """What baresip recorded of the other side, 8 kHz; without the pauses in which nothing was sent."""
        files = list(self._folder.glob("dump-*-dec.wav"))
        assert files, self.log.read_text(errors="replace")
        data = files[0].read_bytes()[44:]
        return np.frombuffer(data[: len(data) & ~1], np.int16)


class Wire:
    """RTP of the phone as it passes the network interface: (when, payload) each way. Needs root."""

    def __init__(self) -> None:
        self.to_phone: list[tuple[float, bytes]] = []
        self.from_phone: list[tuple[float, bytes]] = []
        self._is_over = False

    def __enter__(self) -> Wire:
        try:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        except PermissionError:
            pytest.skip("packets can only be watched by root")
        self._socket.settimeout(0.2)
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()
        self._socket.close()

    def _listen(self) -> None:
        while not self._is_over:
            try:
                data, source = self._socket.recvfrom(2048)
            except TimeoutError:
                continue
            now = time.monotonic()
            start = (data[0] & 15) * 4
            if source[2] == _OUTGOING or data[0] >> 4 != 4 or data[9] != socket.IPPROTO_UDP or len(data) < start + 20:
                continue
            begin, end = struct.unpack_from("!HH", data, start)
            packet = data[start + 8 :]
            if packet[0] >> 6 != 2 or packet[1] & 127 != 0:
                continue  # no RTP, or not PCMU
            for port, kept in ((begin, self.from_phone), (end, self.to_phone)):
                if PHONE_PORTS[0] <= port <= PHONE_PORTS[1]:
                    kept.append((now, packet[12:]))


def is_loud(payload: bytes, peak: int = 500) -> bool:
    return int(np.abs(ulaw_decode(payload).astype(np.int32)).max(initial=0)) > peak


def _free_udp_port(address: str) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


def _is_free(address: str, port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
