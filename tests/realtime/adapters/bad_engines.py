"""Engines that do what no engine may, for the tests of engines in processes of their own."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import numpy as np

from realtime.adapters.base import ChatEnd, ChatRequest, EngineError, EngineInfo, SpeechChunk, TextDelta


class Base:
    kind = "chat"

    def __init__(self, **given: Any) -> None:
        self.given = given

    @property
    def info(self) -> EngineInfo:
        return EngineInfo(name="bad", kind=self.kind, vendor="bad", model="bad", version="1.2", quality="none")

    async def start(self) -> None: ...

    async def close(self) -> None: ...


class Chat(Base):
    """Does as the last message says."""

    def stream(self, request: ChatRequest) -> Any:
        return aclosing(self._answer(request))

    async def _answer(self, request: ChatRequest) -> AsyncIterator[Any]:
        asked = request.messages[-1].content
        if asked == "raise":
            raise ValueError("a secret detail")
        if asked == "refuse":
            raise EngineError("I will not", code="refused", retryable=False)
        yield TextDelta("Well, ")
        if asked == "raise late":
            raise KeyError("late")
        if asked == "hang":
            await asyncio.Event().wait()
        if asked == "block":
            time.sleep(30)  # noqa: ASYNC251
        if asked == "exit":
            os._exit(3)
        if asked == "flood":
            while True:
                yield TextDelta("and on ")
        if asked == "string":
            yield "text"
        if asked == "given":
            yield TextDelta(repr(sorted(self.given.items())))
        if asked == "endless":
            return
        yield TextDelta(asked)
        yield ChatEnd("stop")


class Voice(Base):
    kind = "tts"
    voices = ("one", "two")

    def stream(self, request: Any) -> Any:
        return aclosing(self._speak(request.text))

    async def _speak(self, text: str) -> AsyncIterator[Any]:
        if text == "floats":
            yield SpeechChunk(np.zeros(10))
        yield SpeechChunk(np.ones(100_000, np.int16))


class Deaf(Base):
    """A recogniser that fails at the first audio."""

    kind = "stt"

    def stream(self, options: Any) -> Any:
        return self

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def push(self, pcm: Any) -> None:
        raise RuntimeError("no ears")

    def finish(self) -> None: ...

    async def __aiter__(self) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield None


class FailsToStart(Base):
    async def start(self) -> None:
        raise OSError("no model file")


class NeverStarts(Base):
    async def start(self) -> None:
        await asyncio.Event().wait()


class WantsAnArgument(Base):
    def __init__(self, path: str) -> None:
        super().__init__()


class NoEngine:
    """Something else."""
