"""What the one-shot chat costs over a vendor that answers at once: `python -m benchmarks.gateway`.

A stub vendor and the server run as processes of their own; the same client asks both, so that its own cost
falls out. Latency one request after another, requests a second with 16 open, the server's CPU for each
streamed token, and what the first token comes later. Figures of a busy machine say little: look at ratios.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.calls.server import API_KEY, Server, free_port

TOKENS = 200
OPEN = 16
SECONDS = 4.0
ONE_BY_ONE = 300

_STUB = f"""
import asyncio, json, sys
def event(delta, reason=None):
    choice = {{"index": 0, "delta": delta, "finish_reason": reason}}
    return b"data: " + json.dumps({{"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m",
                                   "choices": [choice]}}).encode() + b"\\n\\n"
def chunk(data):
    return b"%x\\r\\n%s\\r\\n" % (len(data), data)
HEAD = b"HTTP/1.1 200 OK\\r\\nContent-Type: text/event-stream\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n"
END = chunk(event({{}}, "stop") + b"data: [DONE]\\n\\n") + b"0\\r\\n\\r\\n"
SHORT = chunk(event({{"role": "assistant", "content": "Hello"}})) + END
class Stub(asyncio.Protocol):
    def connection_made(self, transport): self.transport, self.data = transport, b""
    def data_received(self, data):
        self.data += data
        head, found, rest = self.data.partition(b"\\r\\n\\r\\n")
        if not found: return
        lines = head.lower().split(b"\\r\\n")
        size = next((int(l.split(b":")[1]) for l in lines if l.startswith(b"content-length")), 0)
        if len(rest) < size: return
        self.data = rest[size:]
        if b"long" in rest: asyncio.get_running_loop().create_task(self.long())
        else: self.transport.write(HEAD + SHORT)
    async def long(self):
        self.transport.write(HEAD)
        for number in range({TOKENS}):
            self.transport.write(chunk(event({{"content": f" token{{number}}"}})))
            await asyncio.sleep(0.001)
        self.transport.write(END)
async def main():
    server = await asyncio.get_running_loop().create_server(Stub, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
"""


class Asker:
    """One kept connection; parses no more than it must."""

    def __init__(self, port: int, path: str) -> None:
        self._port, self._path = port, path

    async def __aenter__(self) -> Asker:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def ask(self, body: bytes) -> float:
        """Sends and reads the whole answer; seconds until its first byte of body."""
        head = (
            f"POST {self._path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {API_KEY}\r\nContent-Length: {len(body)}"
        )
        began = time.perf_counter()
        self._writer.write(f"{head}\r\nContent-Type: application/json\r\n\r\n".encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in answer.partition(b"\r\n")[0]:
            raise RuntimeError(answer.decode())
        first = 0.0
        length = [line for line in answer.lower().split(b"\r\n") if line.startswith(b"content-length")]
        if length:
            await self._reader.readexactly(int(length[0].split(b":")[1]))
            return time.perf_counter() - began
        while size := int(await self._reader.readline(), 16):
            first = first or time.perf_counter() - began
            await self._reader.readexactly(size + 2)
        await self._reader.readline()
        return first


def chat(words: str, *, stream: bool = False) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": words}], "stream": stream}).encode()


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def one_by_one(port: int, path: str, body: bytes) -> float:
    """Median milliseconds of the whole answer."""
    async with Asker(port, path) as asker:
        times = []
        for _ in range(ONE_BY_ONE):
            began = time.perf_counter()
            await asker.ask(body)
            times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times[ONE_BY_ONE // 5 :])


async def per_second(port: int, path: str, body: bytes) -> float:
    until = time.perf_counter() + SECONDS
    count = 0

    async def work() -> None:
        nonlocal count
        async with Asker(port, path) as asker:
            while time.perf_counter() < until:
                await asker.ask(body)
                count += 1

    await asyncio.gather(*(work() for _ in range(OPEN)))
    return count / SECONDS


async def first_token(port: int, path: str) -> float:
    async with Asker(port, path) as asker:
        times = [1000 * await asker.ask(chat("long", stream=True)) for _ in range(15)]
    return statistics.median(times[3:])


async def token_cpu(port: int, pid: int) -> float:
    """Microseconds of the server's CPU for each streamed token."""
    requests = 40
    before = cpu_seconds(pid)
    async with Asker(port, "/v1/ai/chat") as one, Asker(port, "/v1/ai/chat") as two:
        for _ in range(requests // 2):
            await asyncio.gather(one.ask(chat("long", stream=True)), two.ask(chat("long", stream=True)))
    return 1e6 * (cpu_seconds(pid) - before) / (requests * TOKENS)


async def measure(stub: int, server: Server) -> dict[str, float]:
    measures: dict[str, Callable[[], Awaitable[float]]] = {
        "vendor alone, ms": lambda: one_by_one(stub, "/v1/chat/completions", chat("short")),
        "through the server, ms": lambda: one_by_one(server.port, "/v1/ai/chat", chat("short")),
        "vendor alone, first token ms": lambda: first_token(stub, "/v1/chat/completions"),
        "through the server, first token ms": lambda: first_token(server.port, "/v1/ai/chat"),
        f"requests a second, {OPEN} open": lambda: per_second(server.port, "/v1/ai/chat", chat("short")),
        "CPU us per streamed token": lambda: token_cpu(server.port, server.pid),
    }
    return {name: round(await work(), 2) for name, work in measures.items()}


def main() -> None:
    port = free_port()
    config = f"""
[vendors.stub]
base_url = "http://127.0.0.1:{port}/v1"
[[models]]
id = "m"
vendor = "stub"
kind = "chat"
[limits]
requests_per_minute = 10000000
"""
    stub = subprocess.Popen([sys.executable, "-c", _STUB, str(port)])
    try:
        with tempfile.TemporaryDirectory() as folder, Server(Path(folder), config=config) as server:
            for name, value in asyncio.run(measure(port, server)).items():
                print(f"{name:40} {value:10}")
    finally:
        stub.terminate()
        stub.wait()


if __name__ == "__main__":
    main()
