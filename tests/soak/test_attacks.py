"""Attacks over real sockets, while a neighbour's call keeps every packet and memory stays bounded.

What each of them found is mended and held by a short test beside what it attacks; here is the long way.
"""

from __future__ import annotations

import asyncio
import base64
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson
import pytest

from tests.calls import neighbour as neighbours
from tests.calls.caller import Caller, code, dial
from tests.calls.conftest import stock_on_loopback
from tests.calls.neighbour import Neighbour
from tests.calls.server import API_KEY, Server
from tests.calls.test_websocket import dial as open_socket

__all__ = ["stock_on_loopback"]

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

ATTACK_S = 8.0
GROWTH_MIB = 64
"""Of one attacker: events that nobody reads may take 16 MiB, and are kept twice while they are sent."""

SHIFTED_CLOCK = '''
"""A wall clock that the test sets."""
import os, time
real, path = time.time, os.environ["CLOCK_OFFSET"]

def shifted():
    with open(path) as file:
        return real() + float(file.read() or 0)

time.time = shifted
'''


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("attacked"), "--engines", "instant") as running:
        yield running


def resident_mib(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) >> 10


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


@contextmanager
def bounded_memory(server: Server) -> Iterator[None]:
    before = highest = resident_mib(server.pid)
    over = threading.Event()

    def look() -> None:
        nonlocal highest
        while not over.wait(0.1):
            highest = max(highest, resident_mib(server.pid))

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        yield
    finally:
        over.set()
        looking.join()
    assert highest - before < GROWTH_MIB, f"from {before} to {highest} MiB"


# --- WebSocket --------------------------------------------------------------------------------


def upgraded(server: Server) -> socket.socket:
    raw = socket.create_connection(("127.0.0.1", server.port))
    key = base64.b64encode(os.urandom(16)).decode()
    raw.sendall(
        f"GET /v1/realtime HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\n"
        f"Sec-WebSocket-Version: 13\r\nAuthorization: Bearer {API_KEY}\r\n\r\n".encode()
    )
    said = b""
    while b"\r\n\r\n" not in said:
        said += raw.recv(1)
    assert b" 101 " in said
    return raw


def frame(first: int, payload: bytes = b"") -> bytes:
    return bytes([first, 0x80 | len(payload)]) + bytes(4) + payload


FLOODS = {
    "pings": (b"", frame(0x89, bytes(125)) * 400),
    "pongs": (b"", frame(0x8A, bytes(10)) * 3000),
    "tiny messages": (b"", frame(0x81, b"x") * 4000),
    "events that are answered": (b"", frame(0x81, b'{"type":"input_audio_buffer.clear"}') * 1000),
    "empty parts": (frame(0x01), frame(0x00) * 4000),
    "parts of one byte": (frame(0x01), frame(0x00, b"x") * 4000),
}


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flooded_socket_that_is_never_read(server: Server, kind: str) -> None:
    first, again = FLOODS[kind]
    with Neighbour(server) as neighbour, bounded_memory(server), upgraded(server) as raw:
        raw.settimeout(0.5)
        end, at = time.monotonic() + ATTACK_S, 0
        with suppress(ConnectionError):
            raw.sendall(first)
            while time.monotonic() < end:
                with suppress(TimeoutError):
                    at = (at + raw.send(again[at:])) % len(again)
        neighbour.check()


# --- requests ---------------------------------------------------------------------------------

ASKING = """
import socket, sys, threading, time
port, path, end = int(sys.argv[1]), sys.argv[2], time.monotonic() + float(sys.argv[3])
ask = f"POST {path} HTTP/1.1\\r\\nHost: x\\r\\nAuthorization: Bearer ifr_pk_proj_bad\\r\\nContent-Length: 0\\r\\n\\r\\n"

def one():
    with socket.create_connection(("127.0.0.1", port)) as connection:
        while time.monotonic() < end:
            connection.sendall(ask.encode())
            connection.recv(65536)

threads = [threading.Thread(target=one) for _ in range(100)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


@pytest.mark.parametrize("path", ["/v1/ai/realtime/token", "/v1/ai/chat", "/nowhere"])
def test_refused_requests_by_the_ten_thousand(server: Server, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them are in the way of each other, and packets leave between two of them."""
    monkeypatch.setattr(neighbours, "LONGEST_GAP_S", 1.5)  # who asks takes the neighbour's CPU, too
    with Neighbour(server) as neighbour, bounded_memory(server):
        before = lateness(server)
        arguments = [str(server.port), path, str(ATTACK_S)]
        subprocess.run([sys.executable, "-c", ASKING, *arguments], check=True, timeout=5 * ATTACK_S)
        after = lateness(server)
        neighbour.check()
    in_time, every = (after[end] - before[end] for end in ("0.005", "+Inf"))
    assert in_time > every / 2, "measured: 8 of 10, and 3 of 10 where packets wait for all requests that have come"


def lateness(server: Server) -> dict[str, float]:
    """Packets by the most that they were late, in seconds."""
    text = urllib.request.urlopen(f"{server.url}/metrics", timeout=10).read().decode()
    found = re.findall(r'^realtime_packet_lateness_seconds_bucket\{le="(.*)"\} (\S+)$', text, re.MULTILINE)
    return {end: float(count) for end, count in found}


# --- offers, candidates, datagrams ----------------------------------------------------------------


def altered(offer: str, number: int) -> bytes:
    """Another offer of the same shape: each opens a call of its own."""
    return re.sub(r"a=ice-ufrag:\S+", f"a=ice-ufrag:u{number:06d}", offer).encode()


async def flood(count: int, post: Callable[[int], object]) -> Counter[tuple[int, str]]:
    told: Counter[tuple[int, str]] = Counter()
    for start in range(0, count, 20):
        answers = await asyncio.gather(*(post(number) for number in range(start, start + 20)))  # type: ignore[arg-type]
        told.update((status, "" if status == 201 else str(code(body))) for status, _, body in answers)  # type: ignore[misc]
    return told


async def test_hundreds_of_offers_that_are_never_completed(server: Server) -> None:
    before = open_files(server.pid)
    with Neighbour(server) as neighbour, bounded_memory(server):
        offer = await Caller(server, "").offer()
        for credential, most in ((str((await server.token())["token"]), 1), (await secret(server), 10), (API_KEY, 50)):

            async def post(number: int, credential: str = credential) -> object:
                body = altered(offer, number)
                path = "/v1/realtime/calls"
                return await server.request("POST", path, body, credential=credential, content_type="application/sdp")

            told = await flood(200, post)
            assert 1 <= told[201, ""] <= most, told
            assert {status for status, _ in told} <= {201, 401, 429, 503}
            neighbour.check()
        await server.until_calls(1, 30)
    await server.until_calls(0)
    end = time.monotonic() + 10
    while open_files(server.pid) > before + 2:
        assert time.monotonic() < end, "sockets are left"
        await asyncio.sleep(0.1)


async def secret(server: Server) -> str:
    _, _, body = await server.request("POST", "/v1/realtime/client_secrets", b"{}", content_type="application/json")
    return str(orjson.loads(body)["value"])


async def test_candidates_that_name_other_machines_bring_them_little(server: Server) -> None:
    """Twenty at most are asked, by checks of 100 bytes; names are not looked up."""
    victims = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(30)]
    for victim in victims:
        victim.bind(("127.0.0.1", 0))
        victim.setblocking(False)
    lines = [f"{n} 1 udp {2113937151 - n} 127.0.0.1 {v.getsockname()[1]}" for n, v in enumerate(victims)]
    lines += [f"n{n} 1 udp 2113937100 host{n}.example.com 9" for n in range(200)]
    caller = Caller(server, str((await server.token())["token"]))
    offer = re.sub(r"a=candidate:.*\r\n", "", await caller.offer())
    offer = offer.replace("a=ice-ufrag", "".join(f"a=candidate:{x} typ host\r\n" for x in lines) + "a=ice-ufrag", 1)
    with Neighbour(server) as neighbour:
        status, _, _ = await caller.post(offer)
        assert status == 201
        ufrag, pwd = (re.findall(rf"a=ice-{what}:(\S+)", offer)[0] for what in ("ufrag", "pwd"))
        head = f"a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n"
        for net in range(100):  # by the thousand
            more = "".join(f"a=candidate:{n} 1 udp 1 10.0.{net}.{n + 1} 5000 typ host\r\n" for n in range(20))
            status, _, _ = await caller.patch(head + more)
            assert status in (204, 404)
        await server.until_calls(1, 30)
        neighbour.check()
    sizes = [size for victim in victims for size in received(victim)]
    for victim in victims:
        victim.close()
    assert len(sizes) <= 20 * 15
    assert sum(sizes) < 5 * len(offer)
    await caller.connection.close()


def received(victim: socket.socket) -> Iterator[int]:
    with suppress(BlockingIOError):
        while True:
            yield len(victim.recv(2000))


def test_datagrams_of_every_kind_at_the_port_of_a_call(server: Server) -> None:
    chance = random.Random(20)
    heads = (
        b"",
        b"\x00\x01\x00\x00\x21\x12\xa4\x42",
        b"\x16\xfe\xfd",
        b"\x17\xfe\xfd",
        b"\x80\x6f",
        b"\x81\xc8",
        b"\x40\x00",
    )
    datagrams = [head + chance.randbytes(chance.randrange(1300)) for head in heads for _ in range(100)]
    with Neighbour(server) as neighbour, bounded_memory(server):
        answered = neighbour._caller.answered.decode()  # type: ignore[union-attr]
        port = int(re.findall(r"a=candidate:\S+ 1 udp \d+ 127\.0\.0\.1 (\d+) ", answered)[0])
        end = time.monotonic() + ATTACK_S
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            while time.monotonic() < end:
                for _ in range(20):
                    stranger.sendto(chance.choice(datagrams), ("127.0.0.1", port))
                time.sleep(0.002)
        neighbour.check()


# --- the machine ------------------------------------------------------------------------------------


async def test_the_clock_jumps_and_calls_do_not_notice(tmp_path: Path) -> None:
    offset = tmp_path / "offset"
    offset.write_text("0")
    (tmp_path / "sitecustomize.py").write_text(SHIFTED_CLOCK)
    path = os.pathsep.join(part for part in (str(tmp_path), os.environ.get("PYTHONPATH")) if part)
    environ = {"PYTHONPATH": path, "CLOCK_OFFSET": str(offset)}
    with Server(tmp_path / "server", "--engines", "instant", environ=environ) as server, Neighbour(server) as neighbour:
        for jump in (3600, -3600, 86_400 * 40):
            early = str((await server.token())["token"])
            offset.write_text(str(jump))
            caller = Caller(server, early)
            status, _, _ = await caller.post(await caller.offer())
            assert status == 401, "minted in another time"
            await caller.connection.close()
            async with dial(server) as later:
                later.ask("And now?")
                await later.wait_for("output_audio_buffer.stopped")
            neighbour.check()
            offset.write_text("0")
            async with dial(server):
                neighbour.check()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small one."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", place], check=False).returncode:
        pytest.skip("needs to mount a small disk")
    yield place
    subprocess.run(["umount", "-l", place], check=False)


async def test_a_full_disk_costs_new_calls_and_nothing_else(disk: Path, tmp_path: Path) -> None:
    environ, config = {"REALTIME_DATA": str(disk)}, "[agents.recorded]\nrecording = true\n"
    with (
        Server(tmp_path / "server", "--engines", "instant", config=config, environ=environ) as server,
        Neighbour(server) as neighbour,
    ):
        async with dial(server, agent="recorded") as recorded:
            with suppress(OSError), (disk / "full").open("wb", buffering=0) as file:
                while True:
                    file.write(bytes(4096))
            recorded.ask("Are you still there?")
            await recorded.wait_for("output_audio_buffer.stopped")
            wish = orjson.dumps({"session": {"type": "realtime", "instructions": "x" * 30_000}})
            path = "/v1/ai/realtime/token"
            status, headers, body = await server.request("POST", path, wish, content_type="application/json")
            assert (status, code(body)) == (503, "store_unavailable")
            assert "retry-after" in headers
            neighbour.check()
        (disk / "full").unlink()
        async with dial(server) as later:
            later.ask("And now?")
            await later.wait_for("output_audio_buffer.stopped")
    assert "Application shutdown failed" not in server.log()


async def test_told_to_stop_with_calls_open_it_ends_them_and_goes(tmp_path: Path) -> None:
    with Server(tmp_path, "--engines", "instant") as server:
        async with dial(server) as over_webrtc, open_socket(server, check=False) as over_socket:
            with upgraded(server):  # reads nothing
                over_webrtc.ask("Talk to me.")
                await over_webrtc.wait_for("output_audio_buffer.started")
                os.kill(server.pid, signal.SIGTERM)
                await asyncio.wait_for(over_webrtc.over.wait(), 10)
                await asyncio.wait_for(over_socket.connection.wait_closed(), 10)
                await asyncio.to_thread(server.stop)
            over_webrtc.location = ""  # nobody is left to hang up at
    assert "Traceback" not in server.log()


# --- the log ----------------------------------------------------------------------------------------


async def test_a_debug_log_holds_no_key_and_no_word_of_a_caller(tmp_path: Path) -> None:
    turn = '[ice]\nturn_urls = ["turn:127.0.0.1:3478?transport=udp"]\nturn_secret = "env:TURN_SECRET"\n'
    config = f'{turn}[agents.default]\ninstructions = "CANARY one"\n'
    arguments = ("--engines", "instant", "--log-level", "debug")
    with Server(tmp_path, *arguments, config=config, environ={"TURN_SECRET": "CANARY two"}) as server:
        minted = await server.token()
        async with dial(server, token=str(minted["token"])) as caller:
            caller.ask("CANARY three")
            await caller.wait_for("output_audio_buffer.stopped")
            caller.send('{"CANARY four')
            caller.send({"type": "CANARY.five"})
            passwords = re.findall(r"a=ice-pwd:(\S+)", f"{caller.offered!s}\r\n{caller.answered.decode()}")
        reusable = await secret(server)
        async with open_socket(server, key=reusable) as over_socket:
            await over_socket.receive()
            content = [{"type": "input_text", "text": "CANARY six"}]
            item = {"type": "message", "role": "user", "content": content}
            await over_socket.send(type="conversation.item.create", item=item)
            await over_socket.send(type="response.create")
            await over_socket.until("response.done")
        for body in (b'{"messages": "CANARY seven"}', b'{"messages": CANARY eight', b'{"CANARY nine": 1}'):
            await server.request("POST", "/v1/ai/chat", body, content_type="application/json")
        await server.request("GET", "/v1/realtime/none?token=CANARY")
        await server.request("POST", "/v1/ai/chat", b"{}", credential="ifr_pk_proj_CANARY")
    credentials = [str(one["credential"]) for one in minted["ice_servers"] if "credential" in one]  # type: ignore[attr-defined]
    log = server.log()
    assert len(passwords) >= 2
    for word in ("CANARY", API_KEY, str(minted["token"]), reusable, *passwords, *credentials):
        assert word not in log, [line[:200] for line in log.splitlines() if word in line][:3]
