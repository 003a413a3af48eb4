"""Engines behind an OpenAI-compatible address: chat, and transcription and speech made live.

The engines of one address share its `OpenAIVendor`. Answers are read raw, because a pydantic object
per token costs ten times as much. Leaving a stream closes its connection at once. Retries are not
made here but in `failover.py`. This module imports `openai`: import it only when such a vendor is
configured.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import replace
from typing import Any

import numpy as np

from media.audio import RATE_IN, RATE_OUT, Pcm
from realtime.adapters.base import (
    ChatDelta,
    ChatRequest,
    EngineError,
    EngineInfo,
    SpeechChunk,
    SpeechRequest,
    SttOptions,
    Transcript,
    Transcription,
    TranscriptStream,
)
from realtime.adapters.openai_batch import OpenAIBatches
from realtime.adapters.openai_vendor import Answer, OpenAIVendor, Refusal
from realtime.adapters.openai_wire import ChatEvents, Lines, WireError, chat_body, parse_object, transcription
from realtime.adapters.pace import Paces, WordEstimate
from realtime.adapters.wav import AudioError, SpeechReader, wav
from realtime.adapters.words import speakable

DEFAULT_VOICE = "alloy"

MAX_CHAT_BYTES = 16 << 20
"""Bytes of one answer: two orders above what a spoken answer needs, event framing included."""

TAIL_S = 1.0
"""Seconds to wait for the usage after the last token; the words are already out."""

DRAIN_S = 0.1
"""Seconds to wait for the end of the body after the end mark, so that the connection can be used again."""

MIN_UTTERANCE_S = 0.1
"""Seconds: APIs refuse shorter files, and there is no word in them."""

MAX_UTTERANCE_S = 120.0
"""Seconds of one utterance: 3.8 MB."""

MAX_TRANSCRIPT_BYTES = 1 << 20

MAX_RECORDING_BYTES = 16 << 20
"""Bytes of the transcript of a whole recording, every word with its times."""

MAX_SPEECH_BYTES = 600 * RATE_OUT * 8
"""Bytes: ten minutes of audio in the widest format, for a request of at most 4,096 characters."""


class Engine:
    """One model of an address."""

    def __init__(self, vendor: OpenAIVendor, model: str, info: EngineInfo) -> None:
        self._vendor = vendor
        self._model = model
        self._info = info

    @property
    def info(self) -> EngineInfo:
        return self._info

    async def start(self) -> None:
        await self._vendor.start(self)

    async def close(self) -> None:
        await self._vendor.close(self)


class OpenAIChat(Engine):
    """A `ChatModel` on `/chat/completions`."""

    def __init__(self, vendor: OpenAIVendor, model: str, *, temperature: float | None = None) -> None:
        super().__init__(vendor, model, EngineInfo(f"{vendor.name}/{model}", "chat", vendor.name, model))
        self._temperature = temperature
        self._dialect = dict(vendor.dialect)
        """Also fields that this model refused before, and what it calls them instead, if anything."""
        self.batches = OpenAIBatches(vendor, self.info.name, self._body_in_batch) if vendor.has_batches else None

    def stream(self, request: ChatRequest) -> AbstractAsyncContextManager[AsyncIterator[ChatDelta]]:
        return aclosing(self._deltas(request))

    async def _deltas(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        events = ChatEvents()
        with self._vendor.failures(self.info.name):
            async with await self._open(request) as answer:
                if answer.content_type == "application/json":
                    for delta in events.event(parse_object(await answer.read())):
                        yield delta
                else:
                    async with aclosing(self._streamed(answer, events, request.gather_s)) as deltas:
                        async for delta in deltas:
                            yield delta
            yield replace(events.end(), dropped=self._dropped(request))

    async def _streamed(self, answer: Answer, events: ChatEvents, gather_s: float) -> AsyncGenerator[ChatDelta, None]:
        lines, looked = Lines(), 0.0
        async with aclosing(answer.pieces()) as pieces:
            async for piece in pieces:
                for line in lines.push(piece):
                    for delta in events.line(line):
                        yield delta
                if events.finished or events.done:
                    await _tail(pieces, lines, events)
                    return
                if gather_s:
                    soon, looked = looked + gather_s - time.monotonic(), time.monotonic()
                    if soon > 0:
                        await asyncio.sleep(soon)
                        looked += soon
        for line in lines.finish():
            for delta in events.line(line):
                yield delta

    def _dropped(self, request: ChatRequest) -> tuple[str, ...]:
        """What the caller asked for and this model is known not to take."""
        asked = request.temperature is not None and "temperature" in self._dialect
        return ("temperature",) if asked else ()

    async def _open(self, request: ChatRequest) -> Answer:
        """Posts the request; once more for each field whose refusal the server's error explains."""
        body = self._body(request)
        for field, name in self._dialect.items():
            if request.exact and name is None and field in self._dropped(request):
                raise Refusal(f"{self.info.name}: the model does not take {field}", engine=self.info.name, param=field)
            _translate(body, field, name)
        while True:
            try:
                return await self._vendor.post(
                    self.info.name,
                    "/chat/completions",
                    MAX_CHAT_BYTES,
                    body=body,
                    accept="text/event-stream",
                )
            except Refusal as refusal:
                dialect = refusal.dialect(body)
                if dialect is None or (request.exact and dialect == ("temperature", None)):
                    raise
                self._dialect[dialect[0]] = dialect[1]
                _translate(body, *dialect)

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        body = chat_body(request, self._model, self._temperature)
        if request.cache_key is not None and self._vendor.is_openai:
            body["prompt_cache_key"] = request.cache_key
        return body

    def _body_in_batch(self, request: ChatRequest) -> dict[str, Any]:
        """Nothing is left out of it: a refusal would come too late to say so."""
        body = self._body(request)
        del body["stream"], body["stream_options"]
        for field, name in self._dialect.items():
            if name is not None:
                _translate(body, field, name)
        return body


def _translate(body: dict[str, Any], field: str, name: str | None) -> None:
    if field in body:
        value = body.pop(field)
        if name is not None:
            body[name] = value


async def _tail(pieces: AsyncIterator[bytes], lines: Lines, events: ChatEvents) -> None:
    """After the last token: the usage if it comes, then the end of the body."""
    with contextlib.suppress(TimeoutError, EngineError, WireError):
        async with asyncio.timeout(DRAIN_S if events.done else TAIL_S) as limit:
            async for piece in pieces:
                was_done = events.done
                for line in lines.push(piece):
                    events.line(line)
                if events.done and not was_done:
                    limit.reschedule(asyncio.get_running_loop().time() + DRAIN_S)


class OpenAISpeechToText(Engine):
    """A `SpeechToText` on `/audio/transcriptions`: one file per utterance, sent when it is over."""

    def __init__(self, vendor: OpenAIVendor, model: str) -> None:
        super().__init__(vendor, model, EngineInfo(f"{vendor.name}/{model}", "stt", vendor.name, model))
        self._tells_times = vendor.tells_times

    def stream(self, options: SttOptions) -> AbstractAsyncContextManager[TranscriptStream]:
        return self._utterance(options)

    @contextlib.asynccontextmanager
    async def _utterance(self, options: SttOptions) -> AsyncGenerator[TranscriptStream, None]:
        utterance = _Utterance(self, options)
        try:
            yield utterance
        finally:
            await utterance.close()

    def transcription(self, pcm: Pcm, options: SttOptions) -> AbstractAsyncContextManager[AsyncIterator[Transcription]]:
        return aclosing(self._transcription(pcm, options))

    async def _transcription(self, pcm: Pcm, options: SttOptions) -> AsyncGenerator[Transcription, None]:
        """With times where the server has them; one that only knows plain text is asked for that."""
        form: dict[str, str | list[str]] = {"model": self._model, **_hints(options)}
        if self._tells_times:
            form |= {"response_format": "verbose_json", "timestamp_granularities": ["segment", "word"]}
        else:
            form["response_format"] = "json"
        with self._vendor.failures(self.info.name):
            try:
                found = await self._ask(pcm, form)
            except Refusal as refusal:
                text = f"{refusal} {refusal.param}"
                if not self._tells_times or not any(word in text for word in ("format", "verbose", "granular")):
                    raise
                self._tells_times = False
                form = {"model": self._model, "response_format": "json", **_hints(options)}
                found = await self._ask(pcm, form)
            result = transcription(found)
        yield result

    async def _ask(self, pcm: Pcm, form: Mapping[str, str | list[str]]) -> dict[str, Any]:
        answer = await self._vendor.post(
            self.info.name,
            "/audio/transcriptions",
            MAX_RECORDING_BYTES,
            form=form,
            file=("speech.wav", await asyncio.to_thread(wav, pcm, RATE_IN), "audio/wav"),
            accept="application/json",
        )
        async with answer:
            data = await answer.read()
            if answer.content_type == "text/plain":
                return {"text": data.decode(errors="replace").strip()}
            return parse_object(data)

    async def transcribe(self, pcm: Pcm, options: SttOptions) -> str:
        """The words in 16 kHz samples. Raises `EngineError`."""
        form = {"model": self._model, "response_format": "json", **_hints(options)}
        with self._vendor.failures(self.info.name):
            answer = await self._vendor.post(
                self.info.name,
                "/audio/transcriptions",
                MAX_TRANSCRIPT_BYTES,
                form=form,
                file=("speech.wav", wav(pcm, RATE_IN), "audio/wav"),
                accept="application/json",
            )
            async with answer:
                data = await answer.read()
                if answer.content_type == "text/plain":
                    return data.decode(errors="replace").strip()
                text = parse_object(data).get("text")
            if not isinstance(text, str):
                raise WireError("a transcription without text")
            return text.strip()


def _hints(options: SttOptions) -> dict[str, str]:
    hints = {}
    if options.language:
        hints["language"] = options.language.replace("_", "-").partition("-")[0].lower()
    if options.prompt:
        hints["prompt"] = options.prompt.encode(errors="replace").decode()
    return hints


class _Utterance:
    def __init__(self, engine: OpenAISpeechToText, options: SttOptions) -> None:
        self._engine = engine
        self._options = options
        self._pcm: list[Pcm] = []
        self._samples = 0
        self._over = asyncio.Event()
        self._request: asyncio.Task[str] | None = None
        self._told = False
        """The final transcript was given, or the stream was left."""

    def push(self, pcm: Pcm) -> None:
        if self._over.is_set():
            return
        if self._samples + len(pcm) > MAX_UTTERANCE_S * RATE_IN:
            raise EngineError(
                f"an utterance of more than {MAX_UTTERANCE_S:.0f} s",
                code="audio_overflow",
                engine=self._engine.info.name,
                retryable=False,
            )
        self._pcm.append(pcm)
        self._samples += len(pcm)

    def finish(self) -> None:
        if self._over.is_set():
            return
        self._over.set()
        if self._samples >= MIN_UTTERANCE_S * RATE_IN:
            pcm = np.concatenate(self._pcm)
            self._request = asyncio.create_task(self._engine.transcribe(pcm, self._options))
        self._pcm = []

    async def close(self) -> None:
        self._told = True
        self._over.set()
        if self._request is not None:
            self._request.cancel()
            await asyncio.wait([self._request])
            if not self._request.cancelled():
                self._request.exception()  # seen: it may have failed after nobody asked any more

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        await self._over.wait()
        if self._told:
            return
        text = ""
        if self._request is not None:
            # Not awaited itself: who gives up waiting may ask again, and leaving ends it for every reader.
            await asyncio.wait([self._request])
            if self._request.cancelled():
                return
            text = self._request.result()
        self._told = True
        yield Transcript(text, final=True)


class OpenAITextToSpeech(Engine):
    """A `TextToSpeech` on `/audio/speech`; word times are estimated, the API has none."""

    def __init__(self, vendor: OpenAIVendor, model: str) -> None:
        super().__init__(vendor, model, EngineInfo(f"{vendor.name}/{model}", "tts", vendor.name, model))
        self._paces = Paces()

    @property
    def voices(self) -> Sequence[str]:
        return ()

    def stream(self, request: SpeechRequest) -> AbstractAsyncContextManager[AsyncIterator[SpeechChunk]]:
        return aclosing(self._chunks(request))

    async def _chunks(self, request: SpeechRequest) -> AsyncGenerator[SpeechChunk, None]:
        if not speakable(request.text):
            return
        voice = request.voice or DEFAULT_VOICE
        times = WordEstimate(request.text, self._paces.ms_per_character(voice, request.speed))
        samples, began = 0, 0.0
        with self._vendor.failures(self.info.name):
            async with await self._open(request, voice) as answer, aclosing(answer.pieces()) as pieces:
                reader = _reader(answer, header=self._vendor.speech_format == "wav")
                async for piece in pieces:
                    pcm = reader.push(piece)
                    if not len(pcm):
                        continue
                    began = began or time.monotonic()
                    samples += len(pcm)
                    words = times.arrived(_ms(samples), 1000.0 * (time.monotonic() - began))
                    yield SpeechChunk(pcm, words)
                last = reader.finish()
            samples += len(last)
            if not samples:
                raise WireError("speech without a sample")
        yield SpeechChunk(last, times.finish(_ms(samples)))
        self._paces.learn(voice, request.speed, request.text, _ms(samples))

    async def _open(self, request: SpeechRequest, voice: str) -> Answer:
        body: dict[str, Any] = {
            "model": self._model,
            "input": request.text,
            "voice": voice,
            "response_format": self._vendor.speech_format,
        }
        if request.speed != 1.0:
            body["speed"] = request.speed
        return await self._vendor.post(self.info.name, "/audio/speech", MAX_SPEECH_BYTES, body=body, accept="audio/*")


def _reader(answer: Answer, *, header: bool) -> SpeechReader:
    if answer.content_type.startswith("text/") or answer.content_type == "application/json":
        raise AudioError(f"{answer.content_type} instead of audio")
    return SpeechReader(header=header)


def _ms(samples: int) -> float:
    return 1000.0 * samples / RATE_OUT
