"""`openai-agents` for Python, whose model judges every server event with pydantic: no event may be dropped."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agents import function_tool, set_tracing_disabled
from agents.realtime import RealtimeAgent, RealtimeRunner, RealtimeSession

SOUNDS = Path(os.environ["SOUNDS"])
PIECE = 2400
"""Bytes: 50 ms of PCM."""
WEATHER = "what is the weather like in london tomorrow"
_runs: list[str] = []
_complaints: list[str] = []


class _Complaints(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            _complaints.append(record.getMessage())


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    _runs.append(city)
    return json.dumps({"sky": "purple rain"})


@function_tool
def local_time(city: str) -> str:
    """The time in a city."""
    _runs.append(f"time {city}")
    return json.dumps({"time": "half past nine"})


class _Call:
    def __init__(self, session: RealtimeSession) -> None:
        self.session = session
        self.events: list[Any] = []
        self.raw: list[dict[str, Any]] = []
        self.audio = b""
        self._events = aiter(session)
        self._record = open(os.environ["RECORD"], "a")  # noqa: SIM115 - as long as the process

    async def until(self, wanted: Callable[[Any], bool], seconds: float = 20.0) -> Any:
        async with asyncio.timeout(seconds):
            while not wanted(event := await anext(self._events)):
                self._see(event)
        self._see(event)
        return event

    def _see(self, event: Any) -> None:
        self.events.append(event)
        assert event.type != "error", event
        if event.type == "audio":
            self.audio += event.audio.data
        if event.type == "raw_model_event" and event.data.type == "raw_server_event":
            self.raw.append(event.data.data)
            self._record.write(json.dumps(event.data.data) + "\n")
            self._record.flush()
        elif event.type == "raw_model_event":
            assert event.data.type not in ("error", "exception"), event.data

    async def server(self, *types: str) -> dict[str, Any]:
        def wanted(event: Any) -> bool:
            return (
                event.type == "raw_model_event"
                and event.data.type == "raw_server_event"
                and event.data.data["type"] in types
            )

        return (await self.until(wanted)).data.data

    async def speak(self, name: str, *, pause_s: float = 0.0) -> None:
        data = (SOUNDS / name).read_bytes()
        for at in range(0, len(data), PIECE):
            await self.session.send_audio(data[at : at + PIECE])
            await asyncio.sleep(pause_s)

    def types(self) -> list[str]:
        return [event["type"] for event in self.raw]


@asynccontextmanager
async def _call(*, modality: str = "audio", tools: Any = (get_weather,), **settings: Any) -> AsyncIterator[_Call]:
    agent = RealtimeAgent(name="Guide", instructions="Be brief.", tools=list(tools))
    runner = RealtimeRunner(
        agent,
        config={
            "model_settings": {
                "model_name": "gpt-realtime",
                "output_modalities": [modality],
                "audio": {"input": {"turn_detection": {"type": "semantic_vad", "interrupt_response": True}}},
                **settings,
            }
        },
    )
    url = os.environ["BASE_URL"].replace("http", "ws") + "/realtime"
    async with await runner.run(model_config={"url": url, "api_key": os.environ["API_KEY"]}) as session:
        yield _Call(session)
    assert not _complaints, _complaints


def _texts(history: list[Any], role: str) -> list[str]:
    parts = [part for item in history if item.type == "message" and item.role == role for part in item.content]
    return [getattr(part, "text", None) or getattr(part, "transcript", None) or "" for part in parts]


async def text_turn() -> None:
    async with _call(modality="text") as call:
        await call.session.send_message("Tell me a joke.")
        done = await call.server("response.done")
        await call.until(lambda event: event.type == "agent_end")
        said = done["response"]["output"][0]["content"][0]["text"]
        history = call.events[-1].info and call.session._history
        assert _texts(history, "user") == ["Tell me a joke."]
        assert said in _texts(history, "assistant")


async def audio_turn() -> None:
    async with _call() as call:
        await call.speak("weather.pcm")
        await call.server("response.function_call_arguments.done", "response.output_audio.done")
        await call.until(lambda event: event.type == "audio_end")
        assert WEATHER in _texts(call.session._history, "user")
        assert len(call.audio) > 24_000
        assert "response.done" in call.types() or await call.server("response.done")


async def voice_turn_in_g711() -> None:
    form = {"type": "audio/pcmu"}
    async with _call(audio={"input": {"format": form}, "output": {"format": form}}) as call:
        await call.speak("how_are_you.ulaw")
        await call.server("response.done")
        assert len(call.audio) > 8_000


async def parallel_tools_run_once_each() -> None:
    async with _call(modality="text", tools=(get_weather, local_time)) as call:
        await call.session.send_message("Get the weather in London and the local time there.")
        said = ""
        while not ("purple rain" in said and "half past nine" in said):
            done = await call.server("response.done")
            said = " ".join(part["text"] for item in done["response"]["output"] for part in item.get("content", []))
        assert len(_runs) == 2, _runs


async def tool_runs_exactly_once() -> None:
    async with _call() as call:
        await call.session.send_message("What is the weather in London?")
        await call.until(lambda event: event.type == "tool_end")
        await call.server("response.output_audio_transcript.done")
        await call.server("response.done")
        assert _runs == ["London"], _runs
        assert "purple rain" in call.raw[-1]["response"]["output"][0]["content"][0]["transcript"]
        assert call.types().count("response.created") == 2


async def interruption() -> None:
    async with _call(modality="audio") as call:
        await call.session.send_message("Tell me a very long story.")
        await call.until(lambda event: event.type == "audio")
        speaking = asyncio.create_task(call.speak("how_are_you.pcm", pause_s=0.04))
        await call.until(lambda event: event.type == "audio_interrupted")
        truncated = await call.server("conversation.item.truncated")
        retrieved = await call.server("conversation.item.retrieved")
        while retrieved["item"]["id"] != truncated["item_id"]:
            retrieved = await call.server("conversation.item.retrieved")
        assert 0 < len(retrieved["item"]["content"][0]["transcript"].split()) < 40
        made = len(call.audio)
        await call.server("response.output_audio.done")
        if call.types().count("response.done") < 2:
            await call.server("response.done")
        assert len(call.audio) > made, "what was said over the story is answered aloud"
        await speaking


if __name__ == "__main__":
    set_tracing_disabled(True)
    logging.getLogger("openai.agents").addHandler(_Complaints())
    asyncio.run(globals()[sys.argv[1]]())
