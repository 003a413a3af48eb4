"""`POST /v1/ai/tts`: speech from text, as a file with a signed URL or, with `Accept: audio/*`, as it is made.

A long text is said piece by piece by the same voice. A voice name means something at every engine or is
refused with the known names; it never silently becomes another one.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

import numpy as np
import orjson
from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import RedirectResponse, Response

from media.audio import RATE_OUT, Pcm
from realtime.adapters.base import EngineError, SpeechRequest, TextToSpeech
from realtime.adapters.routing import Amount, Model
from realtime.adapters.tries import Tries
from realtime.gateway import sse
from realtime.gateway.bodies import Body, Name, Real, wrong
from realtime.gateway.encoding import MIME, Encoder, Format, whole_wav
from realtime.gateway.openapi import described
from realtime.gateway.work import Call, Gateway, answer_json, prepared, unless_left, with_metadata
from realtime.mistakes import nearest

PATH = "/v1/ai/tts"
MAX_BODY = 1 << 20
MAX_TEXT = 16_384
"""Characters: a quarter of an hour of speech."""
PIECE = 2_000
"""Characters said at once: well below what every vendor takes, and long enough for a paragraph's melody."""
MAX_SECONDS = 1_800.0
"""Seconds of audio of one request, whatever a vendor sends."""

_SENTENCE_END = re.compile(r"[.!?。！？]['\")\]]*\s+|\n+")


class TtsBody(Body):
    input: Annotated[str, Field(min_length=1, max_length=MAX_TEXT, description="Text to synthesize into speech.")]
    voice: Name | None = Field(None, description="Voice id to use.")
    format: Literal["mp3", "wav", "ogg", "pcm"] | None = Field(
        None, description="Output audio format, mp3 by default; ogg is Opus, pcm 16-bit little-endian mono."
    )
    prefer: Literal["balanced", "cheapest", "smartest"] = Field("balanced", description="Optimization axis.")
    speed: Annotated[Real, Field(ge=0.25, le=4)] = Field(1.0, description="1.0 is the voice's own pace.")


def tts_routes(gateway: Gateway) -> APIRouter:
    router = APIRouter(tags=["ai"])

    async def tts(request: Request) -> Response:
        call, body = await prepared(gateway, request, "media", TtsBody, MAX_BODY)
        accept = request.headers.get("accept", "")
        if "audio/" not in accept:
            return await answer_json(request, call, body, PATH, speech)
        if body.format is None:
            body.format = next((form for form, mime in MIME.items() if mime in accept), "mp3")
        if body.idempotency_key is None:
            return await _answer_audio(request, call, body)
        kept = await answer_json(request, call, body, PATH, speech)
        return RedirectResponse(_audio_url(kept), 303) if kept.status_code == 200 else kept

    about = described("tts", TtsBody)
    about["responses"][200]["content"] |= {"audio/mpeg": {}, "audio/wav": {}, "audio/ogg": {}, "audio/pcm": {}}
    about["responses"][303] = {"description": "With a key and `Accept: audio/*`: the audio is at `Location`."}
    router.add_api_route(PATH, tts, methods=["POST"], **about)
    return router


def _audio_url(kept: Response) -> str:
    return str(orjson.loads(bytes(kept.body))["audio_url"])


def pieces(text: str) -> list[str]:
    """`text` in parts of at most `PIECE` characters, cut after sentences where there are any."""
    found: list[str] = []
    while len(text) > PIECE:
        ends = [match.end() for match in _SENTENCE_END.finditer(text, 0, PIECE)]
        cut = ends[-1] if ends else text.rfind(" ", 1, PIECE) + 1 or PIECE
        found.append(text[:cut])
        text = text[cut:]
    return [part for part in (*found, text) if part.strip()]


@dataclass(slots=True)
class _Asked:
    call: Call
    body: TtsBody
    models: tuple[Model, ...]
    tries: Tries[Model]
    parts: list[str]
    seconds: float = 0.0

    async def pcm(self, model: Model) -> AsyncGenerator[Pcm, None]:
        """All samples of the whole text."""
        catalogue = self.call.gateway.catalogue
        engine = cast(TextToSpeech, await catalogue.engine(model))
        voice = catalogue.voice(self.body.voice, engine)
        self.seconds = 0.0
        for part in self.parts:
            request = SpeechRequest(part, voice, speed=self.body.speed)
            async with engine.stream(request) as chunks:
                async for chunk in chunks:
                    if len(chunk.pcm):
                        self.seconds += len(chunk.pcm) / RATE_OUT
                        if self.seconds > MAX_SECONDS:
                            raise EngineError(
                                "the vendor does not stop speaking", code="bad_response", engine=model.vendor
                            )
                        yield chunk.pcm

    async def count(self, model: Model) -> float | None:
        characters = len(self.body.input)
        cost = model.prices.cost(Amount(characters=characters))
        used = Amount(characters=characters, audio_seconds=self.seconds)
        await self.call.gateway.meter.count(self.call.key.id, used, cost)
        return cost


async def _asked(call: Call, body: TtsBody) -> _Asked:
    parts = pieces(body.input)
    if not any(map(str.isalnum, body.input)):
        raise wrong("input", "there is nothing to say")
    amount = Amount(characters=len(body.input))
    plan = call.plan(body, "tts", task="tts", prefer=body.prefer, amount=amount)
    await _check_voice(call, body.voice, plan.models)
    return _Asked(call, body, plan.models, call.tries(plan.models), parts)


async def _check_voice(call: Call, voice: str | None, models: tuple[Model, ...]) -> None:
    catalogue = call.gateway.catalogue
    if voice is None or catalogue.knows_voice(voice):
        return
    known = catalogue.known_voices()
    for model in models:
        known += cast(TextToSpeech, await catalogue.engine(model)).voices
    if voice not in known:
        close = nearest(voice, known)
        hint = f"did you mean '{close}'?" if close else f"known: {', '.join(dict.fromkeys(known))}"
        raise wrong("voice", f"there is no voice '{voice[:64]}'; {hint}", "unknown_voice")


async def speech(call: Call, body: TtsBody) -> dict[str, Any]:
    """The whole audio, kept as a file."""
    ask = await _asked(call, body)
    form: Format = body.format or "mp3"

    async def work(model: Model) -> bytes:
        encoder, whole = Encoder(form), []
        async with aclosing(ask.pcm(model)) as samples:
            async for pcm in samples:
                if form == "wav":
                    whole.append(pcm)
                else:
                    data = await _encoded(encoder, pcm)
                    whole.append(np.frombuffer(data, np.uint8))
        if not ask.seconds:
            raise EngineError(f"{model.id}: no sound came", code="bad_response", engine=model.vendor)
        if form == "wav":
            return await asyncio.to_thread(lambda: whole_wav(np.concatenate(whole)))
        return b"".join(part.tobytes() for part in whole) + await asyncio.to_thread(encoder.finish)

    candidate, data = await ask.tries.first(work)
    id_ = await call.gateway.files.put(data, MIME[form])
    cost = await ask.count(candidate.engine)
    answer: dict[str, Any] = {
        "audio_url": await call.gateway.files.url(call.url, id_),
        "format": form,
        "sample_rate": RATE_OUT,
        "duration_seconds": round(ask.seconds, 3),
        "usage": {"characters": len(body.input), "audio_seconds": round(ask.seconds, 3)},
    }
    return with_metadata(answer, call.metadata(candidate.engine, ask.tries, cost))


async def _encoded(encoder: Encoder, pcm: Pcm) -> bytes:
    """Long pieces off the event loop; short ones are not worth the way."""
    if len(pcm) > RATE_OUT // 5 and encoder.form in ("mp3", "ogg"):
        return await asyncio.to_thread(encoder.push, pcm)
    return encoder.push(pcm)


# --- streamed -------------------------------------------------------------------------------------


async def _answer_audio(request: Request, call: Call, body: TtsBody) -> Response:
    """Bytes as they are made; the status is only known to be good once the first samples are there."""
    recording = sse.Recording()
    task = asyncio.create_task(_record(call, body, recording))
    task.add_done_callback(lambda done: None if done.cancelled() else done.exception() and None)

    def leave() -> None:
        if not task.done():
            task.cancel()

    async def begun() -> None:
        await recording.more(0, call.until - time.monotonic())
        if not recording.chunks and recording.ended:
            await task

    try:
        await unless_left(request, begun())
    except BaseException:
        leave()
        raise
    form: Format = body.format or "mp3"
    headers = {"X-Sample-Rate": str(RATE_OUT)}
    return sse.RecordedStream(recording, leave, media_type=MIME[form], headers=headers)


async def _record(call: Call, body: TtsBody, recording: sse.Recording) -> None:
    try:
        async with asyncio.timeout(call.until - time.monotonic()):
            await _encode_all(await _asked(call, body), recording)
    except TimeoutError:
        recording.failed = EngineError("the time for this request is over", code="deadline")
        raise recording.failed from None
    except BaseException as error:
        recording.failed = error
        raise
    finally:
        recording.end()


async def _encode_all(ask: _Asked, recording: sse.Recording) -> None:
    async def work(model: Model) -> tuple[AsyncExitStack, Pcm, AsyncIterator[Pcm]]:
        async with AsyncExitStack() as own:
            samples = await own.enter_async_context(aclosing(ask.pcm(model)))
            first = await anext(samples, None)
            if first is None:
                raise EngineError(f"{model.id}: no sound came", code="bad_response", engine=model.vendor)
            return own.pop_all(), first, samples
        raise AssertionError  # the block either returns or raises

    candidate, (own, first, samples) = await ask.tries.first(work)
    encoder = Encoder(ask.body.format or "mp3")
    try:
        async with own:
            recording.add(encoder.push(first))
            async for pcm in samples:
                data = await _encoded(encoder, pcm)
                if data:
                    recording.add(data)
        recording.add(encoder.finish())
    finally:
        await asyncio.shield(ask.count(candidate.engine))
