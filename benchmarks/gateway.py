"""What the one-shot chat costs over a vendor that answers at once, beside a LiteLLM proxy in the same run.

    python -m benchmarks.gateway [--no-peer] [--seconds 5] [--json FILE] [--write docs/performance.md]

The stub vendor, the server and the proxy are processes of their own. With two cores or more the one that is
measured has a core to itself, and stub and client share the other. The same client asks all three, so that its
own cost falls out of the difference. CPU is what the kernel charged to the measured process and its children.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import queue
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import orjson

from benchmarks import litellm_proxy, machine, report
from benchmarks.apart import new_loop
from benchmarks.figures import Json, summary
from benchmarks.server import free_port, serve

ROOT = Path(__file__).parent.parent
OPEN = 16
FEW = 2
WARM_UP = 30
LEFT_S = 5.0
"""What the vendor has not noticed by then has failed."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`one_by_one`: requests for a latency; `streams`: long answers of `tokens` on each of the open connections."""

    one_by_one: int = 400
    seconds: float = 5.0
    streams: int = 8
    tokens: int = 200
    leaves: int = 10
    peer: bool = True


@dataclass(frozen=True, slots=True)
class Place:
    """Where chat is asked for. `pid`: whose CPU counts; None for the vendor itself."""

    port: int
    path: str
    key: str
    pid: int | None = None


class Asker:
    """One kept connection; parses no more than it must."""

    def __init__(self, place: Place) -> None:
        self._place = place

    async def __aenter__(self) -> Asker:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._place.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    def send(self, words: str, *, stream: bool) -> None:
        body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": words}], "stream": stream})
        head = f"POST {self._place.path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._place.key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)

    async def ask(self, words: str, *, stream: bool = False) -> tuple[float, float]:
        """Reads the whole answer; milliseconds until its first byte of body, and until its end."""
        began = time.perf_counter()
        self.send(words, stream=stream)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        if b" 200 " not in head.partition(b"\r\n")[0]:
            raise RuntimeError(head.decode())
        length = [line for line in head.split(b"\r\n") if line.startswith(b"content-length")]
        if length:
            await self._reader.readexactly(int(length[0].split(b":")[1]))
            return (ended := 1000 * (time.perf_counter() - began)), ended
        first = 0.0
        while size := int(await self._reader.readline(), 16):
            first = first or 1000 * (time.perf_counter() - began)
            await self._reader.readexactly(size + 2)
        await self._reader.readline()
        return first, 1000 * (time.perf_counter() - began)

    async def first_piece(self) -> None:
        await self._reader.readuntil(b"\r\n\r\n")
        await self._reader.readline()


class Stub:
    """The vendor; it says when a connection with an unfinished answer was closed."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._closed: queue.SimpleQueue[float] = queue.SimpleQueue()

    def read(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._closed.put(float(line))

    async def closed(self) -> float:
        """The monotonic time of the next closing; `LEFT_S` from now when there is none."""
        try:
            return await asyncio.to_thread(self._closed.get, timeout=LEFT_S)
        except queue.Empty:
            return time.monotonic()


@contextmanager
def vendor(tokens: int) -> Iterator[Stub]:
    stub = Stub(free_port())
    command = [sys.executable, "-m", "benchmarks.stub_vendor", str(stub.port), str(tokens)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # it listens
    reader = threading.Thread(target=stub.read, args=[process.stdout], daemon=True)
    reader.start()
    try:
        yield stub
    finally:
        process.terminate()
        process.wait()
        reader.join()


async def one_by_one(place: Place, plan: Plan, *, stream: bool) -> Json:
    """Milliseconds: of a whole answer, or until the first token of a streamed one."""
    async with Asker(place) as asker:
        for _ in range(WARM_UP):
            await asker.ask("short", stream=stream)
        asked = [await asker.ask("short", stream=stream) for _ in range(plan.one_by_one)]
    return summary([first if stream else whole for first, whole in asked], 2)


async def per_second(place: Place, plan: Plan) -> Json:
    """Whole answers a second with 16 open, and what each took of the CPU."""
    count, until = 0, time.perf_counter() + plan.seconds

    async def work(asker: Asker) -> None:
        nonlocal count
        while time.perf_counter() < until:
            await asker.ask("short")
            count += 1

    async with askers(place, OPEN) as open_:
        began, cpu = time.perf_counter(), _cpu(place)
        await asyncio.gather(*map(work, open_))
        seconds, cpu = time.perf_counter() - began, _cpu(place) - cpu
    return {"requests_per_s": round(count / seconds, 1), "cpu_ms_per_request": round(1000 * cpu / count, 3)}


async def token_us(place: Place, plan: Plan, count: int) -> float:
    """Microseconds of CPU for each token, with `count` streams open; the requests' own cost is in it.

    With two open every token comes by itself; with more the server finds several at a time.
    """
    rounds = max(1, plan.streams * OPEN // count // 2)
    async with askers(place, count) as open_:
        before = _cpu(place)
        for _ in range(rounds):
            await asyncio.gather(*(asker.ask("long", stream=True) for asker in open_))
    return round(1e6 * (_cpu(place) - before) / (rounds * count * plan.tokens), 1)


async def left_ms(place: Place, stub: Stub, plan: Plan, words: str, *, stream: bool) -> Json:
    """From the caller's leaving to the end of the connection at the vendor."""
    times = []
    for _ in range(plan.leaves):
        async with Asker(place) as asker:
            asker.send(words, stream=stream)
            if stream and words == "stuck":
                await asker.first_piece()
            await asyncio.sleep(0.1)  # the vendor has the request, and everything rests
            left = time.monotonic()
        times.append(1000 * (await stub.closed() - left))
    return summary(times, 1)


@asynccontextmanager
async def askers(place: Place, count: int) -> AsyncIterator[Sequence[Asker]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(Asker(place)) for _ in range(count)]


def _cpu(place: Place) -> float:
    return (machine.process_seconds(place.pid) or 0.0) if place.pid is not None else 0.0


async def _asked(place: Place, plan: Plan) -> Json:
    figures: Json = {
        "answer_ms": await one_by_one(place, plan, stream=False),
        "first_token_ms": await one_by_one(place, plan, stream=True),
    }
    if place.pid is not None:
        figures |= await per_second(place, plan)
        figures["cpu_us_per_token"] = await token_us(place, plan, FEW)
        figures["cpu_us_per_token_all_open"] = await token_us(place, plan, OPEN)
    return figures


async def _leaving(place: Place, stub: Stub, plan: Plan) -> Json:
    return {
        "whole, before the vendor answers": await left_ms(place, stub, plan, "hang", stream=False),
        "whole, while it answers": await left_ms(place, stub, plan, "stuck", stream=False),
        "streamed, before the first token": await left_ms(place, stub, plan, "hang", stream=True),
        "streamed, after it": await left_ms(place, stub, plan, "stuck", stream=True),
    }


def measure(plan: Plan, say: Callable[[str], None] = lambda _: None) -> Json:
    """Measure the vendor alone, the server and, if wanted, the proxy, one after the other."""
    if plan.peer:
        say("LiteLLM's environment (made once, some minutes)")
        litellm_proxy.install()
    cores = machine.available_cores()
    apart = len(cores) >= 2
    mine, theirs = (cores[1:2], cores[:1]) if apart else ((), ())
    neighbours = machine.Neighbours()
    gc.freeze()
    results: Json = {}
    try:
        machine.pin(mine)
        with vendor(plan.tokens) as stub, asyncio.Runner(loop_factory=new_loop) as runner:
            say("the vendor alone")
            results["vendor"] = runner.run(_asked(Place(stub.port, "/v1/chat/completions", "x"), plan))
            say("through the server")
            with serve(engines=None, config=_config(stub.port), cores=theirs) as server:
                place = Place(server.port, "/v1/ai/chat", server.api_key, server.pid)
                results["server"] = runner.run(_asked(place, plan))
                results["left_ms"] = runner.run(_leaving(place, stub, plan))
            if plan.peer:
                say("through a LiteLLM proxy")
                port = free_port()
                with litellm_proxy.litellm_proxy(stub.port, port, theirs) as pid:
                    place = Place(port, "/v1/chat/completions", litellm_proxy.KEY, pid)
                    results["litellm"] = {"version": litellm_proxy.version(), **runner.run(_asked(place, plan))}
    finally:
        gc.unfreeze()
        machine.pin(cores)
    conditions = {"open": OPEN, "tokens": plan.tokens, "pinned_to_own_cores": apart}
    return {**results, **_differences(results), "conditions": conditions, "other_processes_cores": neighbours.cores()}


def _differences(results: Json) -> Json:
    vendor_, server, peer = results["vendor"], results["server"], results.get("litellm")
    found: Json = {
        "added_ms": round(server["answer_ms"]["p50"] - vendor_["answer_ms"]["p50"], 2),
        "first_token_added_ms": round(server["first_token_ms"]["p50"] - vendor_["first_token_ms"]["p50"], 2),
        "slowest_left_ms": max(figures["max"] for figures in results["left_ms"].values()),
    }
    if peer is not None:
        found["litellm_added_ms"] = round(peer["answer_ms"]["p50"] - vendor_["answer_ms"]["p50"], 2)
        found["litellm_share_of_requests"] = round(peer["requests_per_s"] / server["requests_per_s"], 3)
    return found


def _config(port: int) -> str:
    return f"""
[vendors.stub]
base_url = "http://127.0.0.1:{port}/v1"
[[models]]
id = "m"
vendor = "stub"
kind = "chat"
[limits]
requests_per_minute = 10000000
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gateway", description=__doc__.partition("\n")[0])
    usual = Plan()
    parser.add_argument("--no-peer", dest="peer", action="store_false", help="without the LiteLLM proxy")
    parser.add_argument("--requests", type=int, default=usual.one_by_one, help="for a latency (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=usual.seconds, help="of load (default %(default)s)")
    parser.add_argument("--streams", type=int, default=usual.streams, help="a connection (default %(default)s)")
    parser.add_argument("--leaves", type=int, default=usual.leaves, help="a way of leaving (default %(default)s)")
    report.add_options(parser)
    options = parser.parse_args()
    plan = Plan(options.requests, options.seconds, options.streams, leaves=options.leaves, peer=options.peer)
    report.finish({"gateway": measure(plan, report.progress(options))}, options, part="gateway")


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
