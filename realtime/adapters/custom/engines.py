"""Engines of the user's own, seen from the server: `kind = "python:module:Class"` under `[vendors.NAME]`.

The class is built to the contract of `realtime.adapters.base` and runs in a process of its own, with an
event loop of its own. So nothing that it does can hold up sound or another engine: what it raises ends one
stream, what it yields is checked, a wait has an end (`timeout_seconds`), and a process that blocks or dies
is replaced. It is the user's own code and gets the server's environment; its constructor gets `options`,
and `key`, `base_url` and `model` where the settings have them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any, Literal, TypeVar

from media.audio import Pcm
from realtime.adapters.base import (
    ChatDelta,
    ChatRequest,
    EngineError,
    EngineInfo,
    SpeechChunk,
    SpeechRequest,
    SttOptions,
    Transcript,
)
from realtime.adapters.custom import wire
from realtime.adapters.embedded.worker import Worker, WorkerLimits, WorkerStream
from realtime.settings import PYTHON, VendorSettings

_MAIN = "realtime.adapters.custom.main"
_LOG_LINES = 100_000

Output = TypeVar("Output")


class Custom:
    """What the three kinds have in common."""

    def __init__(
        self, vendor: str, settings: VendorSettings, model: str | None, kind: Literal["stt", "chat", "tts"]
    ) -> None:
        spec = settings.kind.removeprefix(PYTHON)
        self._setting = f'[vendors.{vendor}] kind = "{settings.kind}"'
        self._timeout_s = settings.timeout_seconds
        self._info = EngineInfo(
            name=f"{vendor}/{model}" if model else vendor,
            kind=kind,
            vendor=vendor,
            model=model or spec.rpartition(":")[2],
        )
        limits = WorkerLimits(start_seconds=settings.timeout_seconds, log_lines=_LOG_LINES)
        options = {"kind": kind, "options": _arguments(settings, model)}
        self._worker = Worker(spec, options, limits=limits, main=_MAIN, environ=os.environ)

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def pid(self) -> int | None:
        """Of the process that runs it."""
        return self._worker.pid

    async def start(self) -> None:
        """Raises `EngineError` naming the setting when the class cannot be imported, made or started."""
        try:
            await self._worker.start()
        except EngineError as error:
            text = f"{self._setting}: {error}"
            raise EngineError(text, code=error.code, engine=self._info.name, retryable=error.retryable) from None
        said = self._worker.described
        version, licence, quality = (str(said.get(name) or "") or None for name in ("version", "licence", "quality"))
        self._info = replace(self._info, version=version, licence=licence, quality=quality)

    async def close(self) -> None:
        await self._worker.close()

    async def _ask(
        self, question: ChatRequest | SpeechRequest, read: Callable[[Mapping[str, Any], bytes], Output]
    ) -> AsyncGenerator[Output, None]:
        stream = await self._open(question)
        try:
            while True:
                try:
                    async with asyncio.timeout(self._timeout_s):
                        item = await stream.receive()
                except TimeoutError:
                    text = f"{self._info.name}: nothing within {self._timeout_s:g} s"
                    raise EngineError(text, code="timeout", engine=self._info.name) from None
                except EngineError as error:
                    raise self._named(error) from None
                if item is None:
                    return
                yield read(item.head, item.body)
        finally:
            stream.close()

    async def _open(self, question: ChatRequest | SpeechRequest | SttOptions) -> WorkerStream:
        try:
            return await self._worker.open({}, wire.pack(question))
        except EngineError as error:
            raise self._named(error) from None

    def _named(self, error: EngineError) -> EngineError:
        name = self._info.name
        return EngineError(f"{name}: {error}", code=error.code, engine=name, retryable=error.retryable)


class CustomChat(Custom):
    """`realtime.adapters.base.ChatModel`."""

    def __init__(self, vendor: str, settings: VendorSettings, model: str | None = None) -> None:
        super().__init__(vendor, settings, model, "chat")

    def stream(self, request: ChatRequest) -> AbstractAsyncContextManager[AsyncIterator[ChatDelta]]:
        return aclosing(self._ask(request, wire.unpack_delta))


class CustomTextToSpeech(Custom):
    """`realtime.adapters.base.TextToSpeech`."""

    def __init__(self, vendor: str, settings: VendorSettings, model: str | None = None) -> None:
        super().__init__(vendor, settings, model, "tts")

    @property
    def voices(self) -> Sequence[str]:
        """Known once it has started."""
        return list(self._worker.described.get("voices", ()))

    def stream(self, request: SpeechRequest) -> AbstractAsyncContextManager[AsyncIterator[SpeechChunk]]:
        return aclosing(self._ask(request, wire.unpack_chunk))


class CustomSpeechToText(Custom):
    """`realtime.adapters.base.SpeechToText`."""

    def __init__(self, vendor: str, settings: VendorSettings, model: str | None = None) -> None:
        super().__init__(vendor, settings, model, "stt")

    @asynccontextmanager
    async def stream(self, options: SttOptions) -> AsyncIterator[CustomTranscripts]:
        stream = await self._open(options)
        try:
            yield CustomTranscripts(stream, self._named)
        finally:
            stream.close()


class CustomTranscripts:
    """`realtime.adapters.base.TranscriptStream`."""

    def __init__(self, stream: WorkerStream, named: Callable[[EngineError], EngineError]) -> None:
        self._stream = stream
        self._named = named
        self._finished = False

    def push(self, pcm: Pcm) -> None:
        if self._finished or not len(pcm):
            return
        if not self._stream.send(pcm.tobytes()) and not self._stream.over:
            raise self._named(EngineError("more audio waits for it than it may", code="overflow"))

    def finish(self) -> None:
        self._finished = True
        self._stream.finish()

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        while True:
            try:
                item = await self._stream.receive()
            except EngineError as error:
                raise self._named(error) from None
            if item is None:
                return
            yield wire.unpack_transcript(item.head, item.body)


def _arguments(settings: VendorSettings, model: str | None) -> dict[str, Any]:
    arguments = dict(settings.options)
    if settings.key is not None:
        arguments["key"] = settings.key.get_secret_value()
    if settings.base_url is not None:
        arguments["base_url"] = settings.base_url
    if model is not None:
        arguments["model"] = model
    return arguments
