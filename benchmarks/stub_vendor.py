"""An OpenAI-compatible chat vendor that answers at once: `python -m benchmarks.stub_vendor PORT TOKENS`.

What the last message says decides: with "long" there are TOKENS tokens, each written by itself a millisecond
after the one before; with "hang" nothing comes at all, with "stuck" one token and then nothing; else one token
and the end. It prints a line when it listens, and the monotonic time when a connection is closed with its answer
unfinished. Written on the bare protocol, so that its own cost is small; it is not part of what is measured.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

TOKEN_S = 0.001


def event(delta: dict[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    whole = {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(whole).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def whole(text: str) -> bytes:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = json.dumps(
        {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    ).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
FIRST = chunk(event({"role": "assistant", "content": "Hello"}))
END = chunk(event({}, "stop") + b"data: [DONE]\n\n") + b"0\r\n\r\n"
WHOLE = whole("Hello")


class Vendor(asyncio.Protocol):
    tokens = 200

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._data = b""
        self._unfinished = False
        self._task: asyncio.Task[None] | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._unfinished:
            print(time.monotonic(), flush=True)

    def data_received(self, data: bytes) -> None:
        self._data += data
        head, found, rest = self._data.partition(b"\r\n\r\n")
        if not found:
            return
        lines = head.lower().split(b"\r\n")
        size = next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length")), 0)
        if len(rest) < size:
            return
        self._data = rest[size:]
        self._answer(json.loads(rest[:size] or b"{}"))

    def _answer(self, body: dict[str, Any]) -> None:
        words = str(body.get("messages", [{}])[-1].get("content", ""))
        self._unfinished = True
        if words == "long":
            self._task = asyncio.get_running_loop().create_task(self._long())
        elif words == "stuck":
            self._transport.write(HEAD + FIRST)
        elif words != "hang":
            self._transport.write(HEAD + FIRST + END if body.get("stream") else WHOLE)
            self._unfinished = False

    async def _long(self) -> None:
        self._transport.write(HEAD)
        for number in range(self.tokens):
            self._transport.write(chunk(event({"content": f" token{number}"})))
            await asyncio.sleep(TOKEN_S)
        self._transport.write(END)
        self._unfinished = False


async def main() -> None:
    Vendor.tokens = int(sys.argv[2])
    server = await asyncio.get_running_loop().create_server(Vendor, "127.0.0.1", int(sys.argv[1]))
    print("listening", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
