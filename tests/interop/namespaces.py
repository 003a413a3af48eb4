"""Two network namespaces that see each other by IPv6 only, over a wire in between that is a bad network.

The wire is a pair of TUN devices: every real IP packet passes through this process, which loses and delays those of a
call as a `Link` says (`tests/media/lossy.py`). Needs root, `ip` and /dev/net/tun (Linux). Run as a program inside the
caller's namespace it starts a server in the other one, says both clips, and prints what was understood as JSON.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.calls.caller import clip, dial
from tests.calls.conftest import HOW_ARE_YOU, WEATHER
from tests.calls.server import Server
from tests.media.lossy import CLEAN, Fate, Link

SERVER, CALLER = "realtime-server", "realtime-caller"
ADDRESSES = {SERVER: "fd42:8::1", CALLER: "fd42:8::2"}
SAID = ((HOW_ARE_YOU, "hello how are you today"), (WEATHER, "what is the weather like in london tomorrow"))
HEARD = "conversation.item.input_audio_transcription.completed"
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_CLONE_NEWNET = 0x40000000
_UDP = 17


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)


def _tun(namespace: str) -> int:
    """The end of a TUN device that was made inside the namespace; a thread of its own goes there and is thrown away."""
    opened: list[int] = []

    def make() -> None:
        with open(f"/run/netns/{namespace}") as place:
            assert ctypes.CDLL(None, use_errno=True).setns(place.fileno(), _CLONE_NEWNET) == 0
        end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH14x", b"wire", _IFF_TUN | _IFF_NO_PI))
        opened.append(end)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join(10)
    return opened[0]


class Wire:
    """Packets between two TUN devices, on an event loop in a thread of its own."""

    def __init__(self, ends: dict[str, int], link: Link) -> None:
        self._loop = asyncio.new_event_loop()
        self._fates = {name: (link.fates(f"{name} audio"), Link(delay_ms=link.delay_ms).fates(name)) for name in ends}
        self.lost = self.passed = 0
        for name, end in ends.items():
            (other,) = (fd for key, fd in ends.items() if key != name)
            self._loop.add_reader(end, self._carry, name, end, other)
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def _carry(self, name: str, end: int, other: int) -> None:
        with contextlib.suppress(BlockingIOError):
            packet = os.read(end, 65_535)
            fate = self._fate(name, packet)
            self.lost += not fate
            self.passed += bool(fate)
            for delay in fate:
                self._loop.call_later(delay, self._put, other, packet)

    def _fate(self, name: str, packet: bytes) -> Fate:
        audio, rest = self._fates[name]
        is_rtp = len(packet) > 60 and packet[6] == _UDP and 128 <= packet[48] <= 191 and not 192 <= packet[49] <= 223
        return next(audio if is_rtp else rest)

    @staticmethod
    def _put(end: int, packet: bytes) -> None:
        with contextlib.suppress(OSError):
            os.write(end, packet)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


@contextlib.contextmanager
def wired(link: Link = CLEAN) -> Iterator[Wire]:
    """Both namespaces, up and connected."""
    with contextlib.ExitStack() as undo:
        ends: dict[str, int] = {}
        for name, address in ADDRESSES.items():
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("netns", "del", name)  # of a run that was killed
            ip("netns", "add", name)
            undo.callback(ip, "netns", "del", name)
            ends[name] = _tun(name)
            undo.callback(os.close, ends[name])
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "address", "add", f"{address}/64", "dev", "wire", "nodad")
            ip("-n", name, "link", "set", "wire", "up")
        wire = Wire(ends, link)
        undo.callback(wire.close)
        yield wire


async def call(server: Server) -> dict[str, object]:
    no_answer = {"input": {"turn_detection": {"type": "server_vad", "create_response": False}}}
    async with dial(server, session={"type": "realtime", "audio": no_answer}) as caller:
        heard = []
        for path, _ in SAID:
            await caller.microphone.say(clip(path))
            heard.append((await caller.wait_for(HEARD))["transcript"])
        return {"heard": heard, "stats": await caller.stats(), "answer": caller.answered.decode()}


def main(folder: Path) -> None:
    prefix = ["ip", "netns", "exec", SERVER]
    server = Server(folder, "--host", ADDRESSES[SERVER], prefix=prefix)
    server.url = f"http://[{ADDRESSES[SERVER]}]:{server.port}"
    with server:
        print(json.dumps(asyncio.run(call(server))))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
