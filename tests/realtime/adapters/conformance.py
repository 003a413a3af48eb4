"""What every engine owes its callers: the contract of `realtime.adapters.base`, as checks for any engine.

Call them with a started engine. Each check makes its own streams and leaves none open.
"""

from __future__ import annotations

import asyncio
import itertools
import json

import numpy as np

from media.audio import RATE_IN, Pcm
from realtime.adapters.base import (
    ChatDelta,
    ChatEnd,
    ChatModel,
    ChatRequest,
    EngineError,
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
    Word,
)

DEADLINE_S = 30.0
WEATHER = Tool(
    "get_weather",
    "The weather at a place",
    {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
)


def check_info(info_of: SpeechToText | ChatModel | TextToSpeech, kind: str) -> None:
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


async def _all(stream: object) -> list[Transcript]:
    return [transcript async for transcript in stream]  # type: ignore[attr-defined]


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
    [(_, name, arguments)] = called(deltas)
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
