"""Vendors that answer with server-sent events, on a real socket: the shapes of Anthropic's and Google's APIs."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

KEY = "sk-very-secret-0123456789"


@dataclass
class Wire:
    """Answers every request with `events`, or an error, or hangs after the events. `answer`: events by the body."""

    events: list[Any] = field(default_factory=list)
    answer: Callable[[dict[str, Any]], list[Any]] | None = None
    status: int = 200
    headers: str = ""
    hang: bool = False
    url: str = ""
    paths: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = next(
                int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length")
            )
            self.bodies.append(json.loads(await reader.readexactly(length)))
            self.paths.append(head.split(" ")[1])
            if self.status != 200:
                body = json.dumps({"error": {"message": f"no, {KEY}", "code": self.status, "status": "X"}}).encode()
                start = f"HTTP/1.1 {self.status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
                writer.write(f"{start}{self.headers}\r\n".encode() + body)
            else:
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                for event in self.answer(self.bodies[-1]) if self.answer else self.events:
                    name = f"event: {event['type']}\n" if "type" in event else ""
                    data = f"{name}data: {json.dumps(event)}\n\n".encode()
                    writer.write(b"%x\r\n%s\r\n" % (len(data), data))
                if not self.hang:
                    writer.write(b"0\r\n\r\n")
            await writer.drain()
            if self.hang:
                await reader.read()
                self.closed.set()
        writer.close()


@contextlib.asynccontextmanager
async def serving(wire: Wire) -> AsyncIterator[Wire]:
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    wire.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        server.close()


def anthropic_events(*blocks: dict[str, Any], stop: str = "end_turn") -> list[dict[str, Any]]:
    usage = {"input_tokens": 7, "output_tokens": 1, "cache_read_input_tokens": 2, "cache_creation_input_tokens": 1}
    message = {"id": "m", "type": "message", "role": "assistant", "content": [], "model": "m", "stop_reason": None,
               "stop_sequence": None, "usage": usage}  # fmt: skip
    end = {
        "type": "message_delta",
        "delta": {"stop_reason": stop, "stop_sequence": None},
        "usage": {"output_tokens": 5},
    }
    return [{"type": "message_start", "message": message}, *blocks, end, {"type": "message_stop"}]


def text(value: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": value}}


def parts(*found: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"role": "model", "parts": list(found)}}
    if finish:
        candidate["finishReason"] = finish
    counts = {"promptTokenCount": 10, "candidatesTokenCount": 4, "thoughtsTokenCount": 1, "cachedContentTokenCount": 2}
    return {"candidates": [candidate], "usageMetadata": counts}


CALL = '{"location": "Paris"}'


def anthropic_answer(body: dict[str, Any]) -> list[Any]:
    """Calls the tool that is asked for; else says hello."""
    if body.get("tool_choice", {}).get("type") != "tool":
        return anthropic_events(text("Hel"), text("lo"))
    block = {"type": "tool_use", "id": "t1", "name": body["tool_choice"]["name"], "input": {}}
    return anthropic_events(
        {"type": "content_block_start", "index": 0, "content_block": block},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": piece}}
            for piece in (CALL[:7], CALL[7:])
        ),
        stop="tool_use",
    )


def gemini_answer(body: dict[str, Any]) -> list[Any]:
    calling = body.get("toolConfig", {}).get("functionCallingConfig", {})
    if calling.get("mode") != "ANY":
        return [parts({"text": "Hel"}), parts({"text": "lo"}, finish="STOP")]
    call = {"name": calling["allowedFunctionNames"][0], "args": json.loads(CALL)}
    return [parts({"functionCall": call}, finish="STOP")]
