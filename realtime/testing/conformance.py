"""What every engine owes its callers: the contract of `realtime.adapters.base`, as checks for any engine.

    async def test_my_recogniser():
        await check(MyRecogniser, Abilities(speech=read_wav("hello.wav")))

`check` makes an engine, starts it, holds it to what its kind and its `Abilities` promise, and closes it. The
single checks and the helpers below it serve tests that look closer. What is broken is an `AssertionError`; no
check waits longer than `DEADLINE_S`. Each makes its own streams and leaves none open.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np

from media.audio import RATE_IN, Pcm
from realtime.adapters.base import (
    ChatDelta,
    ChatEnd,
    ChatModel,
    ChatRequest,
    Embedder,
    Embeddings,
    EngineError,
    Image,
    ImageGenerator,
    Message,
    SpeechChunk,
    SpeechRequest,
    SpeechToText,
    SttOptions,
    TextDelta,
    TextToSpeech,
    Tool,
    ToolCallDelta,
    Transcript,
    TranscriptStream,
    Word,
)
from realtime.adapters.decoding import image_type

Engine: TypeAlias = ChatModel | SpeechToText | TextToSpeech | Embedder | ImageGenerator

DEADLINE_S = 30.0
WEATHER = Tool(
    "get_weather",
    "The weather at a place",
    {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
)


@dataclass(frozen=True, slots=True)
class Abilities:
    """What an engine is declared to be able to do, beyond what all of its kind must.

    `tools`: a chat model calls the tool it is told to. `dimensions`: a number of dimensions that an embedder
    makes on request; None: only its own. `size`: width and height that an image generator makes; None: only
    its own. `speech`: 16 kHz, a second or more, for a recogniser; a tone without it.
    """

    tools: bool = True
    dimensions: int | None = None
    size: tuple[int, int] | None = None
    speech: Pcm | None = None


async def check(make: Callable[[], Engine], abilities: Abilities = Abilities()) -> None:
    """Everything that an engine of its kind owes. `make`: a new engine, not started."""
    engine = make()
    try:
        match engine.info.kind:
            case "chat":
                await check_chat_model(cast(ChatModel, engine), tools=abilities.tools)
            case "stt":
                speech = tone() if abilities.speech is None else abilities.speech
                await check_speech_to_text(cast(SpeechToText, engine), speech)
            case "tts":
                await check_text_to_speech(cast(TextToSpeech, engine))
            case "embed":
                await check_embedder(cast(Embedder, engine), dimensions=abilities.dimensions)
            case "image":
                await check_image_generator(cast(ImageGenerator, engine), size=abilities.size)
            case kind:
                raise AssertionError(f"no engine is of kind {kind!r}")
    finally:
        await engine.close()
    await make().close()  # one that was never started closes too


def tone(seconds: float = 1.5) -> Pcm:
    """Something to hear, at 16 kHz."""
    return (3000 * np.sin(np.arange(int(seconds * RATE_IN)) / 8)).astype(np.int16)


def check_info(info_of: Engine, kind: str) -> None:
    info = info_of.info
    assert info.kind == kind
    assert info.name
    assert info.vendor
    assert info.model


# --- speech to text ---------------------------------------------------------------------------


async def transcribe(
    engine: SpeechToText, pcm: Pcm, *, session: str = "", piece: int = 320, options: SttOptions | None = None
) -> list[Transcript]:
    async with asyncio.timeout(DEADLINE_S), engine.stream(options or SttOptions(session=session)) as stream:
        for start in range(0, len(pcm), piece):
            stream.push(pcm[start : start + piece])
            if start % (piece * 16) == 0:
                await asyncio.sleep(0)
        stream.finish()
        return [transcript async for transcript in stream]


def check_transcripts(transcripts: list[Transcript]) -> None:
    assert transcripts, "there is always a final transcript"
    assert [transcript.final for transcript in transcripts] == [False] * (len(transcripts) - 1) + [True]
    texts = [transcript.text for transcript in transcripts[:-1]]
    assert all(earlier != later for earlier, later in itertools.pairwise(texts)), "partials come as they change"


async def check_speech_to_text(engine: SpeechToText, speech: Pcm) -> None:
    """`speech`: 16 kHz, a second or more."""
    check_info(engine, "stt")
    await engine.start()
    check_transcripts(await transcribe(engine, speech, session="conformance"))
    # Nothing at all, and a sound too short to hold a word.
    check_transcripts(await transcribe(engine, np.zeros(0, np.int16)))
    check_transcripts(await transcribe(engine, np.zeros(160, np.int16)))
    # What comes after the end of the utterance changes nothing.
    async with asyncio.timeout(DEADLINE_S), engine.stream(SttOptions()) as stream:
        stream.push(speech[: RATE_IN // 2])
        stream.finish()
        stream.finish()
        stream.push(speech)
        check_transcripts([transcript async for transcript in stream])
        assert [transcript async for transcript in stream] == []
    await _check_leaving_recognition(engine, speech)
    check_transcripts(await transcribe(engine, speech))


async def _check_leaving_recognition(engine: SpeechToText, speech: Pcm) -> None:
    async with asyncio.timeout(DEADLINE_S):
        async with engine.stream(SttOptions()):
            pass
        async with engine.stream(SttOptions()) as stream:
            stream.push(speech)
        assert [transcript async for transcript in stream if not transcript.final] == []
        stream.push(speech)
        stream.finish()
        # A reader that waits when the stream is left does not wait for ever.
        async with engine.stream(SttOptions()) as stream:
            reader = asyncio.create_task(_all(stream))
            stream.push(speech[:320])
            await asyncio.sleep(0)
        await asyncio.wait_for(asyncio.gather(reader, return_exceptions=True), DEADLINE_S)


async def _all(stream: TranscriptStream) -> list[Transcript]:
    return [transcript async for transcript in stream]


async def check_recognition_bounded(engine: SpeechToText, at_most_seconds: float) -> None:
    """`push` never blocks, and says when it takes no more; what it took is still recognised."""
    second = np.zeros(RATE_IN, np.int16)
    async with asyncio.timeout(DEADLINE_S), engine.stream(SttOptions()) as stream:
        refused = 0
        for _ in range(int(at_most_seconds) + 1):
            try:
                stream.push(second)
            except EngineError:
                refused += 1
        assert refused
        stream.finish()
        check_transcripts([transcript async for transcript in stream])


# --- chat -------------------------------------------------------------------------------------


async def converse(engine: ChatModel, request: ChatRequest) -> list[ChatDelta]:
    async with asyncio.timeout(DEADLINE_S), engine.stream(request) as deltas:
        return [delta async for delta in deltas]


def said(deltas: list[ChatDelta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


def called(deltas: list[ChatDelta]) -> list[tuple[str, str, object]]:
    """Id, name and parsed arguments of every tool call."""
    calls: dict[int, list[str]] = {}
    for delta in deltas:
        if isinstance(delta, ToolCallDelta):
            call = calls.setdefault(delta.index, [delta.id or "", delta.name or "", ""])
            call[2] += delta.arguments
    return [(id_, name, json.loads(arguments)) for id_, name, arguments in calls.values()]


def check_deltas(deltas: list[ChatDelta]) -> ChatEnd:
    assert [isinstance(delta, ChatEnd) for delta in deltas] == [False] * (len(deltas) - 1) + [True]
    seen: set[int] = set()
    for delta in deltas:
        if isinstance(delta, ToolCallDelta) and delta.index not in seen:
            assert delta.id, "the first delta of a call holds its id"
            assert delta.name, "the first delta of a call holds its name"
            seen.add(delta.index)
    end = deltas[-1]
    assert isinstance(end, ChatEnd)
    assert (end.finish_reason == "tool_calls") == bool(seen)
    return end


async def check_chat_model(engine: ChatModel, *, tools: bool = True) -> None:
    check_info(engine, "chat")
    await engine.start()
    hello = ChatRequest([Message("system", "Be kind."), Message("user", "hello")])
    deltas = await converse(engine, hello)
    check_deltas(deltas)
    assert said(deltas)
    # Nobody has said anything yet.
    check_deltas(await converse(engine, ChatRequest([])))
    check_deltas(await converse(engine, ChatRequest([Message("system", "Greet the caller.")])))
    check_deltas(await converse(engine, ChatRequest([Message("user", "")])))
    # Leaving early ends the stream, and the next one works.
    async with asyncio.timeout(DEADLINE_S):
        async with engine.stream(hello):
            pass
        async with engine.stream(hello) as stream:
            await anext(stream)
        assert [delta async for delta in stream] == []
    check_deltas(await converse(engine, hello))
    if tools:
        await _check_tools(engine)


async def _check_tools(engine: ChatModel) -> None:
    asked = [Message("user", "what is the weather in london")]
    deltas = await converse(engine, ChatRequest(asked, [WEATHER], "tool:get_weather"))
    check_deltas(deltas)
    calls = called(deltas)
    assert len(calls) == 1, "it calls the one tool it is told to; Abilities(tools=False) is for a model without tools"
    [(_, name, arguments)] = calls
    assert name == "get_weather"
    assert isinstance(arguments, dict)
    assert isinstance(arguments["location"], str)
    check_deltas(await converse(engine, ChatRequest(asked, [WEATHER], "none")))


# --- text to speech ---------------------------------------------------------------------------


async def speak(engine: TextToSpeech, request: SpeechRequest) -> list[SpeechChunk]:
    async with asyncio.timeout(DEADLINE_S), engine.stream(request) as chunks:
        return [chunk async for chunk in chunks]


def sound(chunks: list[SpeechChunk]) -> Pcm:
    return np.concatenate([np.zeros(0, np.int16), *(chunk.pcm for chunk in chunks)])


def words(chunks: list[SpeechChunk]) -> list[Word]:
    return [word for chunk in chunks for word in chunk.words]


def check_chunks(request: SpeechRequest, chunks: list[SpeechChunk]) -> None:
    for chunk in chunks:
        assert chunk.pcm.dtype == np.int16
        assert chunk.pcm.ndim == 1
    duration_ms = len(sound(chunks)) / 24
    end, at_ms = 0, 0.0
    for word in words(chunks):
        assert end <= word.start < word.end <= len(request.text), "words are in order and inside the text"
        assert request.text[word.start : word.end].strip() == request.text[word.start : word.end]
        assert at_ms <= word.at_ms <= duration_ms + 20, "times never go back, nor past the end"
        end, at_ms = word.end, word.at_ms


async def check_text_to_speech(engine: TextToSpeech) -> None:
    check_info(engine, "tts")
    await engine.start()
    request = SpeechRequest("Hello there. I can hear you now, and that is nice!")
    chunks = await speak(engine, request)
    check_chunks(request, chunks)
    assert len(sound(chunks)) > 24_000, "ten words last longer than a second"
    assert np.abs(sound(chunks).astype(np.int32)).max() > 1000, "it can be heard"
    for voice in [*engine.voices][:3]:
        assert len(sound(await speak(engine, SpeechRequest("One two three.", voice=voice))))
    for text in ("", " \n\t ", "...!? -- ,", "\0"):
        silent = await speak(engine, SpeechRequest(text))
        assert not len(sound(silent)), f"nothing is to be said of {text!r}"
        assert words(silent) == []
    for text in HOSTILE:
        check_chunks(SpeechRequest(text), await speak(engine, SpeechRequest(text)))
    await _check_leaving_speech(engine)
    check_chunks(request, await speak(engine, request))


HOSTILE = (
    "<speak>Say <break time='10s'/> this &amp; [[that]].</speak>",
    "It costs 1234.56 dollars, i.e. 42% of it, at 3:45 pm.",
    "Zurück über Žluťoučký kůň \U0001f600 done",
    "one\0two \x01three\x1b[2J",
    "a lone \ud800 surrogate and a \u202e right-to-left mark",
    "-o /tmp/no --help $(no) `no`",
    "x" * 400,
)


async def _check_leaving_speech(engine: TextToSpeech) -> None:
    long = SpeechRequest("This is a sentence of a long text. " * 100)
    async with asyncio.timeout(DEADLINE_S):
        async with engine.stream(long):
            pass
        async with engine.stream(long) as chunks:
            assert len((await anext(chunks)).pcm) >= 0
        assert [chunk async for chunk in chunks] == []


# --- embeddings -------------------------------------------------------------------------------


async def embed(engine: Embedder, texts: list[str], *, dimensions: int | None = None) -> Embeddings:
    async with asyncio.timeout(DEADLINE_S), engine.embed(texts, dimensions=dimensions) as found:
        results = [embeddings async for embeddings in found]
    assert len(results) == 1, "one answer holds all vectors"
    return results[0]


def check_embeddings(found: Embeddings, count: int, dimensions: int | None = None) -> None:
    assert len(found.vectors) == count, "one vector for each text"
    lengths = {len(vector) for vector in found.vectors}
    assert len(lengths) == 1, "all vectors are of one length"
    assert dimensions is None or lengths == {dimensions}
    assert 0 not in lengths
    assert all(math.isfinite(number) for vector in found.vectors for number in vector)
    assert found.input_tokens is None or found.input_tokens >= 0


async def check_embedder(engine: Embedder, *, dimensions: int | None = None) -> None:
    check_info(engine, "embed")
    await engine.start()
    texts = ["a raccoon has clever paws", "hi", "a raccoon has clever paws"]
    found = await embed(engine, texts)
    check_embeddings(found, 3)
    assert np.allclose(found.vectors[0], found.vectors[2], atol=1e-3), "the same text has the same vector, in order"
    assert not np.allclose(found.vectors[0], found.vectors[1], atol=1e-3), "another one has another"
    for text in HOSTILE:
        check_embeddings(await embed(engine, [text]), 1)
    if dimensions is not None:
        check_embeddings(await embed(engine, texts[:1], dimensions=dimensions), 1, dimensions)
    async with asyncio.timeout(DEADLINE_S), engine.embed(texts):
        pass
    check_embeddings(await embed(engine, texts), 3)


# --- images -----------------------------------------------------------------------------------


async def draw(
    engine: ImageGenerator, prompt: str, *, size: tuple[int, int] | None = None, count: int = 1
) -> list[Image]:
    async with asyncio.timeout(DEADLINE_S), engine.generate(prompt, size=size, count=count) as found:
        return [image async for image in found]


async def check_image_generator(engine: ImageGenerator, *, size: tuple[int, int] | None = None) -> None:
    check_info(engine, "image")
    await engine.start()
    prompt = "A watercolor raccoon reading a book"
    for images, most in (await draw(engine, prompt), 1), (await draw(engine, prompt, count=2), 2):
        assert 1 <= len(images) <= most
        for image in images:
            assert image.data
            assert image_type(image.data) == image.mime, "the bytes are what they are called"
    if size is not None:
        assert await draw(engine, prompt, size=size)
    for text in HOSTILE:
        assert len(await draw(engine, text)) == 1
    async with asyncio.timeout(DEADLINE_S), engine.generate(prompt):
        pass
    assert await draw(engine, prompt)
