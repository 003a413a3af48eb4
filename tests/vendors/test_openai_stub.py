"""The stub speaks the API: the official client understands it."""

import io
import wave
from collections.abc import AsyncIterator, Iterator

import numpy as np
import openai
import pytest

from tests.vendors.openai_stub import CHAT, SPEECH, TRANSCRIPTIONS, OpenAIStub, Plan


@pytest.fixture
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub().serve() as stub:
        yield stub


@pytest.fixture
async def client(stub: OpenAIStub) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key="sk-test", base_url=stub.base_url, max_retries=0, timeout=5) as client:
        yield client


async def test_chat_streams_text_and_usage(stub: OpenAIStub, client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "hi"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello there, friend."
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 11
    assert stub.requests(CHAT)[0].headers["authorization"] == "Bearer sk-test"


async def test_chat_streams_tool_calls(stub: OpenAIStub, client: openai.AsyncOpenAI) -> None:
    stub.tool_calls = [("weather", '{"city": "Bern"}')]
    async with client.chat.completions.stream(
        model="m",
        messages=[{"role": "user", "content": "hi"}],
        tools=[{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}],
    ) as stream:
        completion = await stream.get_final_completion()
    calls = completion.choices[0].message.tool_calls
    assert calls is not None
    assert [(call.function.name, call.function.arguments) for call in calls] == stub.tool_calls


async def test_speech_is_raw_pcm_or_wav(stub: OpenAIStub, client: openai.AsyncOpenAI) -> None:
    pcm = await client.audio.speech.create(model="m", voice="alloy", input="Hello.", response_format="pcm")
    assert len(pcm.content) == 2 * 24 * stub.speech_ms
    await client.audio.speech.create(model="m", voice="alloy", input="Hello.", response_format="wav")
    assert [record.body["response_format"] for record in stub.requests(SPEECH)] == ["pcm", "wav"]


async def test_transcription_takes_a_wav_file(stub: OpenAIStub, client: openai.AsyncOpenAI) -> None:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(np.arange(1600, dtype="<i2").tobytes())
    result = await client.audio.transcriptions.create(model="m", file=("a.wav", buffer.getvalue()), language="en")
    assert result.text == "what was said"
    record = stub.requests(TRANSCRIPTIONS)[0]
    assert record.samples is not None
    assert list(record.samples) == list(range(1600))
    assert record.body["language"] == "en"


async def test_planned_failures_are_those_of_the_api(stub: OpenAIStub, client: openai.AsyncOpenAI) -> None:
    stub.plan(CHAT, Plan(status=429))
    stub.plan(CHAT, Plan(status=500))
    stub.plan(CHAT, Plan(reset=True))
    for expected in (openai.RateLimitError, openai.InternalServerError, openai.APIConnectionError):
        with pytest.raises(expected):
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}])


async def test_the_journal_says_that_a_client_left(stub: OpenAIStub, client: openai.AsyncOpenAI) -> None:
    stub.plan(CHAT, Plan(hang=True, after=2))
    stream = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=True)
    await anext(stream)
    await stream.close()
    await stub.until(lambda: stub.requests(CHAT)[0].closed_early)
