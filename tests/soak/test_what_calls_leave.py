"""What calls hold while they last, and what a thousand of them leave: no task, socket or thread, and no memory.

Run by `make soak`. The callers are those of `realtime bench`, which cost little themselves.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from media.network import Network
from media.opus import SILENCE_PACKET
from media.pacer import Pacer
from media.peer import Peer
from realtime import bench
from realtime.app import create_app
from realtime.load import Load
from realtime.settings import load as load_settings
from tests.calls.server import API_KEY, free_port
from tests.media.webrtc import Ear, tone, until

pytestmark = [
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory and files are read in /proc"),
    pytest.mark.timeout(600),
]

WARM_UP = 300
"""Calls after which caches, pools and allocators have their size."""
SHORT_CALLS = 1000
AT_ONCE = 10
CONFIG = "[limits]\ncalls = 1000\ntokens_per_minute = 100000\n"


def memory_kib(pid: int | str = "self") -> int:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0])


def threads_of(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


@dataclass(frozen=True)
class Held:
    """By this process, in which server and callers run."""

    tasks: int
    files: int
    threads: int

    @classmethod
    def now(cls) -> Held:
        return cls(len(asyncio.all_tasks()), len(list(Path("/proc/self/fd").iterdir())), threading.active_count())


async def short_calls(load: Load, count: int) -> None:
    """Each asks for an answer and hears the beginning of it."""
    for _ in range(count // AT_ONCE):
        await load.open(AT_ONCE)
        async with asyncio.timeout(10):
            while not all(call.received for call in load.calls):
                await load.run(0.02)
        await load.hang_up(AT_ONCE)


async def at_rest(before: Held | None = None) -> Held:
    """Once everything of the calls is gone; what is still there after 10 s otherwise."""
    for _ in range(100):
        await asyncio.sleep(0.1)
        gc.collect()
        if before is not None and Held.now() == before:
            break
    return Held.now()


async def test_a_thousand_short_calls_leave_nothing(tmp_path: Path) -> None:
    file = tmp_path / "realtime.toml"
    file.write_text(CONFIG)
    settings = load_settings(file, {"REALTIME_DATA": str(tmp_path), "REALTIME_API_KEY": API_KEY})
    port = free_port()
    config = uvicorn.Config(create_app(settings, engines="instant"), port=port, log_level="warning")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        assert not serving.done()
        await asyncio.sleep(0.05)
    load = Load(f"http://127.0.0.1:{port}", API_KEY, [bench.packets(bench.murmur(1.0))], SILENCE_PACKET, duplex=True)
    await short_calls(load, WARM_UP)
    before = await at_rest()
    memory = memory_kib()
    await short_calls(load, SHORT_CALLS)
    after = await at_rest(before)
    print(f"{before}, {memory} KiB\n{after}, {memory_kib()} KiB")
    assert after == before
    assert memory_kib() <= memory * 1.05
    await load.close()
    server.should_exit = True
    await serving


async def test_a_call_holds_little_memory_and_no_thread() -> None:
    with bench.server() as (url, key, pid):
        threads = threads_of(pid)
        load = Load(url, key, [bench.packets(bench.murmur(5.0))], SILENCE_PACKET)
        await load.open(20)
        await load.run(2)
        before = memory_kib(pid)
        await load.open(100)
        await load.run(1)
        idle = (memory_kib(pid) - before) / 100
        await load.run(30)
        talking = (memory_kib(pid) - before) / 100
        print(f"{idle:.0f} KiB a call that just began, {talking:.0f} KiB one that has talked")
        assert idle <= 450, "a leg and its conversation"
        assert talking <= 3 * 1024
        assert threads_of(pid) <= threads + 2
        await load.close()


async def test_an_idle_media_leg_holds_350_kib() -> None:
    """Both ends of each call are legs of ours, in this process; each has said and heard something."""
    network, pacer = Network(interfaces=["127.0.0.1"]), Pacer()
    peers: list[Peer] = []

    async def connect() -> None:
        pair, ears = [Peer(network=network, pacer=pacer) for _ in range(2)], [Ear(), Ear()]
        for peer, ear in zip(pair, ears, strict=True):
            peer.attach(ear)
        await pair[0].accept(await pair[1].answer(await pair[0].offer()))
        await until(lambda: all("text_open" in ear.told for ear in ears), "the text channel is open")
        for peer in pair:
            peer.playout.push(1, tone(0.1, 24_000))
            peer.playout.finish(1)
            peer.wake()
        await until(lambda: all(ear.audio for ear in ears), "both have heard")
        peers.extend(pair)

    for _ in range(10):
        await connect()
    gc.collect()
    before, count = memory_kib(), len(peers)
    for _ in range(50):
        await connect()
    gc.collect()
    each = (memory_kib() - before) / (len(peers) - count)
    print(f"{each:.0f} KiB a leg")
    for peer in peers:
        await peer.close()
    pacer.stop()
    assert each <= 350
