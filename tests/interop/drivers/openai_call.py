"""`openai` for Python, as its users write it: what its drivers share. They run inside its own environment."""

from __future__ import annotations

import asyncio
import base64
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai

SOUNDS = Path(os.environ["SOUNDS"])
RATE = 24_000
WEATHER = "what is the weather like in london tomorrow"
TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def client_of(key: str = os.environ["API_KEY"]) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=os.environ["BASE_URL"], api_key=key, max_retries=0)


class Call:
    """A connection of the SDK's; every event it brings is recorded as it came."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.events: list[Any] = []
        self._record = open(os.environ["RECORD"], "ab")  # noqa: SIM115 - as long as the process

    async def next(self) -> Any:
        raw = await self.connection.recv_bytes()
        self._record.write(raw.strip() + b"\n")
        self._record.flush()
        event = self.connection.parse_event(raw)
        self.events.append(event)
        return event

    async def until(self, *types: str, seconds: float = 20.0) -> Any:
        async with asyncio.timeout(seconds):
            while (event := await self.next()).type not in types:
                assert event.type != "error" or "error" in types, event
        return event

    async def update(self, **session: Any) -> Any:
        await self.connection.session.update(session={"type": "realtime", **session})
        return (await self.until("session.updated")).session

    async def ask(self, text: str, **response: Any) -> None:
        await self.connection.conversation.item.create(item=said(text))
        await self.connection.response.create(**({"response": response} if response else {}))

    async def append(self, data: bytes) -> None:
        await self.connection.input_audio_buffer.append(audio=base64.b64encode(data).decode())

    async def answer(self) -> Any:
        return (await self.until("response.done")).response

    def types(self) -> list[str]:
        return [event.type for event in self.events]

    def audio(self) -> bytes:
        deltas = [event.delta for event in self.events if event.type == "response.output_audio.delta"]
        return b"".join(base64.b64decode(delta) for delta in deltas)

    def only(self, kind: str) -> Any:
        found = [event for event in self.events if event.type == kind]
        assert len(found) == 1, self.types()
        return found[0]


@asynccontextmanager
async def connected(**options: Any) -> AsyncIterator[Call]:
    options.setdefault("model", "gpt-realtime")
    async with client_of().realtime.connect(**options) as connection:
        call = Call(connection)
        first = await call.next()
        assert first.type == "session.created", first
        yield call


def said(text: str) -> dict[str, Any]:
    return {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}


def sound(name: str) -> bytes:
    return (SOUNDS / name).read_bytes()


@asynccontextmanager
async def refused(kind: type[Exception], text: str) -> AsyncIterator[None]:
    """What is done within fails like this."""
    try:
        yield
    except kind as error:
        if text not in f"{error!r} {error}":
            raise
    else:
        raise AssertionError(f"no {kind.__name__} with {text}")


def main(scenarios: dict[str, Any]) -> None:
    asyncio.run(scenarios[sys.argv[1]]())
