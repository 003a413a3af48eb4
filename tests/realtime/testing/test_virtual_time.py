"""Virtual time is the time of one loop, in its thread."""

from __future__ import annotations

import asyncio
import threading
import time

from realtime.testing.virtual_time import VirtualLoop


async def an_hour() -> float:
    began = time.monotonic()
    await asyncio.sleep(3600)
    return time.monotonic() - began


def test_an_hour_passes_at_once():
    loop, began = VirtualLoop(), time.monotonic()
    assert loop.run(an_hour()) == 3600
    loop.close()
    assert time.monotonic() - began < 10


def test_the_loop_of_another_thread_keeps_its_own_time():
    ready, told, woke = threading.Event(), threading.Event(), threading.Event()

    async def other() -> None:
        while not told.is_set():
            ready.set()
            await asyncio.sleep(0.001)
        woke.set()

    thread = threading.Thread(target=lambda: asyncio.run(other()), daemon=True)
    thread.start()
    assert ready.wait(10)

    async def a_while() -> None:
        time.sleep(0.1)  # noqa: ASYNC251 - the other loop turns meanwhile
        await an_hour()

    loop = VirtualLoop()
    loop.run(a_while())
    loop.close()
    told.set()
    assert woke.wait(10)
