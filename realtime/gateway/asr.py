"""`POST /v1/ai/asr`: text from a recording, given as a URL, as base64 or as an upload.

The file is opened in a child process with limits and becomes 16 kHz samples. A recogniser that takes whole
recordings gets them; one that listens live gets stretches cut where it is quiet, which become the segments.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Annotated, Any, Literal, cast

import numpy as np
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.responses import Response

from media.audio import RATE_IN, Pcm
from realtime.adapters.base import (
    EngineError,
    RecordingTranscriber,
    Segment,
    SpeechToText,
    SttOptions,
    Transcription,
)
from realtime.adapters.routing import Amount, Model
from realtime.gateway.bodies import Body, parse, read, wrong
from realtime.gateway.errors import GatewayError
from realtime.gateway.images import decoded, load
from realtime.gateway.languages import code
from realtime.gateway.openapi import described
from realtime.gateway.work import Call, Gateway, answer_json, call_of, with_metadata

PATH = "/v1/ai/asr"
MAX_AUDIO = 25 << 20
"""Bytes of a file: what the largest vendor takes."""
MAX_BODY = MAX_AUDIO * 4 // 3 + (64 << 10)
WHOLE_S = 600.0
"""Seconds given to a recogniser of recordings at once: 19 MB."""
STRETCH_S = 25.0
"""Seconds given to a live recogniser at once: below what the shortest of them takes."""
QUIET_S = 0.02
"""Seconds over which loudness is measured."""
PUSH_S = 1.0


class AudioSource(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    url: Annotated[str, Field(min_length=1)] | None = None
    base64: Annotated[str, Field(min_length=1)] | None = None
    mime: Annotated[str, Field(max_length=128)] | None = None

    @model_validator(mode="after")
    def _one(self) -> AudioSource:
        if (self.url is None) == (self.base64 is None):
            raise ValueError("give either `url` or `base64`")
        return self


class AsrBody(Body):
    audio: AudioSource = Field(description="Audio reference as URL or base64.")
    language: Annotated[str, Field(min_length=1, max_length=64)] | None = Field(
        None, description="Language hint, e.g. en or zh."
    )
    prefer: Literal["balanced", "cheapest", "smartest"] = Field("balanced", description="Optimization axis.")
    prompt: Annotated[str, Field(max_length=4096)] | None = Field(None, description="Words that may come up.")


def asr_routes(gateway: Gateway) -> APIRouter:
    router = APIRouter(tags=["ai"])

    async def asr(request: Request) -> Response:
        key = await gateway.admit(request, "media")
        if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            document = await _form(request)
        else:
            document = parse(await read(request, MAX_BODY))
        call, body = call_of(gateway, request, key, document, AsrBody)
        return await answer_json(request, call, body, PATH, transcript)

    about = described("asr", AsrBody)
    upload = {
        "type": "object",
        "required": ["audio"],
        "properties": {"audio": {"type": "string", "format": "binary"}, "language": {"type": "string"}},
    }
    about["openapi_extra"]["requestBody"]["content"]["multipart/form-data"] = {"schema": upload}
    router.add_api_route(PATH, asr, methods=["POST"], **about)
    return router


async def _form(request: Request) -> dict[str, Any]:
    """An upload as the same document that JSON would be."""
    declared = request.headers.get("content-length", "")
    if not declared.isdecimal() or int(declared[:12]) > MAX_AUDIO + (64 << 10):
        status, code_ = (413, "request_too_large") if declared else (411, "length_required")
        raise GatewayError(status, code_, f"An upload has a Content-Length of at most {MAX_AUDIO} bytes.")
    try:
        async with request.form(max_files=1, max_fields=16, max_part_size=64 << 10) as form:
            document: dict[str, Any] = {}
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    data = await value.read()
                    document[name] = {"base64": (await asyncio.to_thread(base64.b64encode, data)).decode()}
                elif name in ("timeout_seconds", "max_cost_multiplier"):
                    document[name] = _number(name, value)
                else:
                    document[name] = value
    except (MultiPartException, HTTPException) as error:
        detail = error.message if isinstance(error, MultiPartException) else error.detail
        raise GatewayError(400, "invalid_form", f"The form cannot be read: {detail}") from None
    if isinstance(document.get("audio"), str):
        raise wrong("audio", "must be a file")
    return document


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise wrong(name, "not a number") from None


async def transcript(call: Call, body: AsrBody) -> dict[str, Any]:
    language = None
    if body.language is not None:
        language = code(body.language)
        if language is None:
            raise wrong("language", "give a language as en, zh or en-US")
    if body.audio.base64 is not None:
        data = await decoded(body.audio.base64, MAX_AUDIO, "audio")
    else:
        data = await load(call, body.audio.url or "", MAX_AUDIO, "audio")
    pcm = await call.gateway.decoder.audio(data)
    seconds = len(pcm) / RATE_IN
    amount = Amount(audio_seconds=seconds)
    plan = call.plan(body, "stt", task="asr", prefer=body.prefer, amount=amount)
    tries = call.tries(plan.models)
    options = SttOptions(language, body.prompt)

    async def work(model: Model) -> Transcription:
        engine = cast(SpeechToText, await call.gateway.catalogue.engine(model))
        return await transcribed(engine, pcm, options)

    candidate, found = await tries.first(work)
    model = candidate.engine
    cost = model.prices.cost(amount)
    await call.gateway.meter.count(call.key.id, amount, cost)
    spoken = code(found.language) if found.language else language
    if spoken is None and model.vendor == "embedded":
        spoken = "en"  # the only one it knows
    answer: dict[str, Any] = {
        "text": found.text,
        "language": spoken,
        "segments": [_segment(number, segment) for number, segment in enumerate(found.segments)],
        "duration_seconds": round(seconds, 3),
        "usage": {"audio_seconds": round(seconds, 3)},
    }
    return with_metadata(answer, call.metadata(model, tries, cost))


def _segment(number: int, segment: Segment) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "id": number,
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": segment.text,
    }
    if segment.speaker is not None:
        shown["speaker"] = segment.speaker
    if segment.words:
        shown["words"] = [
            {"word": word.text, "start": round(word.start, 3), "end": round(word.end, 3)} for word in segment.words
        ]
    return shown


async def transcribed(engine: SpeechToText, pcm: Pcm, options: SttOptions) -> Transcription:
    """The whole recording through one engine."""
    whole = isinstance(engine, RecordingTranscriber)
    cuts = await asyncio.to_thread(stretches, pcm, WHOLE_S if whole else STRETCH_S)
    texts: list[str] = []
    segments: list[Segment] = []
    language: str | None = None
    for start, end in cuts:
        if isinstance(engine, RecordingTranscriber):
            found = await _recording(engine, pcm[start:end], options)
        else:
            found = await _utterance(engine, pcm[start:end], options)
        language = language or found.language
        if found.text:
            texts.append(found.text)
        at = start / RATE_IN
        segments += [_moved(segment, at) for segment in found.segments]
        if not found.segments and found.text:
            segments.append(Segment(found.text, at, end / RATE_IN))
    return Transcription(" ".join(texts), language, tuple(segments))


def _moved(segment: Segment, by: float) -> Segment:
    words = tuple(type(word)(word.text, word.start + by, word.end + by) for word in segment.words)
    return Segment(segment.text, segment.start + by, segment.end + by, words, segment.speaker)


async def _recording(engine: RecordingTranscriber, pcm: Pcm, options: SttOptions) -> Transcription:
    async with engine.transcription(pcm, options) as found:
        async for transcription in found:
            return transcription
    raise EngineError("no transcript came", code="bad_response")


async def _utterance(engine: SpeechToText, pcm: Pcm, options: SttOptions) -> Transcription:
    step = int(PUSH_S * RATE_IN)
    async with engine.stream(options) as stream:
        for at in range(0, len(pcm), step):
            stream.push(pcm[at : at + step])
            await asyncio.sleep(0)
        stream.finish()
        async for partial in stream:
            if partial.final:
                return Transcription(partial.text.strip())
    raise EngineError("no transcript came", code="bad_response")


def stretches(pcm: Pcm, seconds: float) -> Sequence[tuple[int, int]]:
    """The recording in parts of at most `seconds`, cut at the quietest moment of each part's second half."""
    most, window = int(seconds * RATE_IN), int(QUIET_S * RATE_IN)
    found: list[tuple[int, int]] = []
    start = 0
    while len(pcm) - start > most:
        half = pcm[start + most // 2 : start + most].astype(np.float32)
        loudness = (half[: len(half) // window * window].reshape(-1, window) ** 2).mean(axis=1)
        end = start + most // 2 + (int(np.argmin(loudness)) * window + window // 2)
        found.append((start, end))
        start = end
    return [*found, (start, len(pcm))]
