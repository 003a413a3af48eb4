"""Engines behind an OpenAI-compatible address, against a stub vendor on a real socket."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from media.audio import RATE_IN
from realtime.adapters.base import (
    ChatDelta,
    ChatEnd,
    ChatRequest,
    EngineError,
    ImagePart,
    Message,
    SpeechChunk,
    SpeechRequest,
    SttOptions,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    Transcript,
    Usage,
)
from realtime.adapters.catalogue import Catalogue
from realtime.adapters.failover import AllFailed, FirstOfChat, FirstOfSpeechToText, FirstOfTextToSpeech
from realtime.adapters.openai import MAX_UTTERANCE_S, OpenAIChat, OpenAISpeechToText, OpenAITextToSpeech
from realtime.adapters.openai_vendor import OpenAIVendor
from realtime.settings import AgentSettings, Settings, VendorSettings
from realtime.testing import conformance
from tests.vendors.openai_stub import CHAT, MODELS, SPEECH, TRANSCRIPTIONS, OpenAIStub, Plan

KEY = "sk-very-secret-0123456789"
HELLO = ChatRequest([Message("user", "hello")])


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIStub]:
    with OpenAIStub().serve() as stub:
        yield stub


@pytest.fixture
def stub(server: OpenAIStub) -> OpenAIStub:
    fresh = OpenAIStub()
    url = server.base_url
    vars(server).update(vars(fresh))
    server.base_url = url
    return server


def settings(stub: OpenAIStub, **values: Any) -> VendorSettings:
    return VendorSettings(**{"base_url": stub.base_url, "key": SecretStr(KEY), "timeout_seconds": 5, **values})


@pytest.fixture
async def vendor(stub: OpenAIStub) -> AsyncIterator[OpenAIVendor]:
    vendor = OpenAIVendor("acme", settings(stub))
    yield vendor
    for user in [None, *vendor._users]:  # a test that failed, or looked at starting only, has left some
        await vendor.close(user)


async def chat(vendor: OpenAIVendor, request: ChatRequest = HELLO, **options: Any) -> list[ChatDelta]:
    async with OpenAIChat(vendor, "m", **options).stream(request) as deltas:
        return [delta async for delta in deltas]


def text(deltas: list[ChatDelta]) -> str:
    return "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))


async def speak(vendor: OpenAIVendor, request: SpeechRequest) -> list[SpeechChunk]:
    async with OpenAITextToSpeech(vendor, "m").stream(request) as chunks:
        return [chunk async for chunk in chunks]


async def hear(vendor: OpenAIVendor, pcm: np.ndarray, options: SttOptions | None = None) -> list[Transcript]:
    async with OpenAISpeechToText(vendor, "m").stream(options or SttOptions()) as stream:
        for at in range(0, len(pcm), 320):
            stream.push(pcm[at : at + 320])
        stream.finish()
        return [transcript async for transcript in stream]


# --- chat ---------------------------------------------------------------------------------------


async def test_fast_tokens_may_be_read_together_and_none_is_lost(
    stub: OpenAIStub, vendor: OpenAIVendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    naps: list[float] = []

    async def nap(seconds: float) -> None:
        naps.append(seconds)
        await asyncio.sleep(seconds)

    stub.tokens = [f" {number}" for number in range(300)]
    monkeypatch.setattr("realtime.adapters.openai.asyncio", SimpleNamespace(**{**vars(asyncio), "sleep": nap}))
    deltas = await chat(vendor, replace(HELLO, gather_s=0.02))
    assert text(deltas) == "".join(stub.tokens)
    assert isinstance(deltas[-1], ChatEnd)
    assert naps
    assert all(0 < seconds <= 0.02 for seconds in naps)
    naps.clear()
    await chat(vendor)
    assert naps == [], "in a call they come as they are made"


async def test_what_the_settings_say_of_an_address_is_not_tried_first(stub: OpenAIStub) -> None:
    stub.refuses = ("max_tokens", "stream_options", "verbose_json")
    quirks = {"max_tokens_field": "max_completion_tokens", "stream_usage": False, "transcription_format": "json"}
    vendor = OpenAIVendor("acme", settings(stub, **quirks))
    await chat(vendor, replace(HELLO, max_tokens=9))
    (asked,) = stub.requests(CHAT)
    assert asked.body["max_completion_tokens"] == 9
    assert not {"max_tokens", "stream_options"} & asked.body.keys()
    recogniser = OpenAISpeechToText(vendor, "m")
    async with recogniser.transcription(np.zeros(RATE_IN, np.int16), SttOptions()) as found:
        assert (await anext(found)).text == "what was said"
    assert [asked.body["response_format"] for asked in stub.requests(TRANSCRIPTIONS)] == ["json"]
    await vendor.close(None)


def test_openai_itself_is_asked_in_its_newer_words(stub: OpenAIStub) -> None:
    assert OpenAIVendor("openai", VendorSettings(key=SecretStr(KEY))).dialect == {"max_tokens": "max_completion_tokens"}
    assert OpenAIVendor("acme", settings(stub)).dialect == {}
    older = VendorSettings(key=SecretStr(KEY), max_tokens_field="max_tokens")
    assert OpenAIVendor("openai", older).dialect == {}


async def test_the_first_token_waits_for_no_other(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    stub.plan(CHAT, Plan(hang=True, after=2))
    async with asyncio.timeout(5), OpenAIChat(vendor, "m").stream(replace(HELLO, gather_s=60.0)) as deltas:
        assert await anext(deltas) == TextDelta("Hello")


async def test_an_answer_comes_token_by_token_and_ends_with_usage(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    deltas = await chat(vendor)
    assert deltas[:-1] == [TextDelta(token) for token in stub.tokens]
    assert deltas[-1] == ChatEnd("stop", Usage(11, 5, 3))


async def test_a_request_says_what_the_caller_wants(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    tools = [Tool("weather", "Tells it.", {"type": "object", "properties": {"city": {"type": "string"}}})]
    messages = [
        Message("system", "Be brief."),
        Message("user", "What is this?", images=(ImagePart("data:image/png;base64,AA=="),)),
        Message("assistant", tool_calls=(ToolCall("call_1", "weather", '{"city":"Bern"}'),)),
        Message("tool", "sunny", tool_call_id="call_1"),
    ]
    request = ChatRequest(messages, tools, "tool:weather", max_tokens=50)
    await chat(vendor, request, temperature=0.5)
    record = stub.requests(CHAT)[0]
    assert record.headers["authorization"] == f"Bearer {KEY}"
    assert record.body == {
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "max_tokens": 50,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {
                        "id": "call_1",
                        "type": "function",
                        "function": {"name": "weather", "arguments": '{"city":"Bern"}'},
                    }
                ],
            },
            {"role": "tool", "content": "sunny", "tool_call_id": "call_1"},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "weather",
                    "description": "Tells it.",
                    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
                },
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
    }


@pytest.mark.parametrize(("choice", "written"), [("auto", None), ("none", "none"), ("required", "required")])
async def test_tool_choice(stub: OpenAIStub, vendor: OpenAIVendor, choice: str, written: str | None) -> None:
    await chat(vendor, ChatRequest(HELLO.messages, [Tool("a")], choice))
    assert stub.requests(CHAT)[0].body.get("tool_choice") == written


async def test_the_requests_temperature_wins(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    await chat(vendor, ChatRequest(HELLO.messages, temperature=0.0), temperature=0.5)
    assert stub.requests(CHAT)[0].body["temperature"] == 0.0


async def test_tool_calls_come_in_pieces(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    stub.tool_calls = [("weather", '{"city": "Bern"}'), ("time", "{}")]
    deltas = await chat(vendor, ChatRequest(HELLO.messages, [Tool("weather"), Tool("time")]))
    assert deltas[-1] == ChatEnd("tool_calls", Usage(11, 5, 3))
    calls: dict[int, list[str]] = {}
    for delta in deltas[:-1]:
        assert isinstance(delta, ToolCallDelta)
        if delta.index not in calls:
            assert delta.id == f"call_{delta.index}"
            calls[delta.index] = [delta.name or "", ""]
        else:
            assert delta.id is None
        calls[delta.index][1] += delta.arguments
    assert [tuple(call) for call in calls.values()] == stub.tool_calls


async def test_fields_that_a_server_refuses_are_left_out_or_renamed_once_and_for_all(
    stub: OpenAIStub, vendor: OpenAIVendor
) -> None:
    stub.refuses = ("stream_options", "temperature", "max_tokens!")
    engine = OpenAIChat(vendor, "m", temperature=0.5)
    for _ in range(2):
        async with engine.stream(ChatRequest(HELLO.messages, max_tokens=9)) as deltas:
            found = [delta async for delta in deltas]
        assert text(found) == "Hello there, friend."
        assert found[-1] == ChatEnd("stop", None)
    assert len(stub.requests(CHAT)) == 3 + 1 + 1
    last = stub.requests(CHAT)[-1].body
    assert "temperature" not in last
    assert last["max_completion_tokens"] == 9


async def test_a_server_that_does_not_stream(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    body = b'{"choices":[{"message":{"role":"assistant","content":"All at once."},"finish_reason":"length"}]}'
    stub.plan(CHAT, Plan(body=body, content_type="application/json"))
    assert await chat(vendor) == [TextDelta("All at once."), ChatEnd("length", None)]


async def test_leaving_closes_the_connection(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    stub.plan(CHAT, Plan(hang=True, after=3))
    async with OpenAIChat(vendor, "m").stream(HELLO) as deltas:
        assert await anext(deltas) == TextDelta("Hello")
    await stub.until(lambda: stub.requests(CHAT)[0].closed_early)


@pytest.mark.parametrize("path", [CHAT, SPEECH, TRANSCRIPTIONS])
async def test_cancelling_before_the_first_byte_closes_the_connection(
    stub: OpenAIStub, vendor: OpenAIVendor, path: str
) -> None:
    stub.plan(path, Plan(hang=True))
    work: Any = {
        CHAT: lambda: chat(vendor),
        SPEECH: lambda: speak(vendor, SpeechRequest("Hello.")),
        TRANSCRIPTIONS: lambda: hear(vendor, np.zeros(RATE_IN, np.int16)),
    }[path]
    task = asyncio.create_task(work())
    await stub.until(lambda: len(stub.requests(path)) == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await stub.until(lambda: stub.requests(path)[0].closed_early)


async def test_a_finished_answer_leaves_the_connection_for_the_next(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    for _ in range(3):
        await chat(vendor)
    assert len({record.client for record in stub.requests(CHAT)}) == 1


async def test_a_server_that_sends_no_end_mark_is_not_waited_for(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    # Pieces: role, five tokens, finish; then silence instead of usage and [DONE].
    stub.plan(CHAT, Plan(hang=True, after=7))
    async with asyncio.timeout(4):
        deltas = await chat(vendor)
    assert deltas[-1] == ChatEnd("stop", None)


# --- failures -----------------------------------------------------------------------------------

FAILURES = [
    pytest.param(Plan(status=401, message=f"Incorrect key {KEY}"), "auth_failed", False, id="401"),
    pytest.param(Plan(status=403), "auth_failed", False, id="403"),
    pytest.param(Plan(status=429), "rate_limited", True, id="429"),
    pytest.param(Plan(status=400, message=f"no, {KEY}, no"), "bad_request", False, id="400"),
    pytest.param(Plan(status=404), "not_found", False, id="404"),
    pytest.param(Plan(status=500), "bad_response", True, id="500"),
    pytest.param(Plan(status=503), "overloaded", True, id="503"),
    pytest.param(Plan(status=504), "timeout", True, id="504"),
    pytest.param(Plan(status=302, headers={"location": "http://127.0.0.1:9/"}), "bad_response", True, id="redirect"),
    pytest.param(Plan(reset=True), "connection_failed", True, id="reset"),
]


@pytest.mark.parametrize("path", [CHAT, SPEECH, TRANSCRIPTIONS])
@pytest.mark.parametrize(("plan", "code", "retryable"), FAILURES)
async def test_failures_have_names_and_never_the_key(
    stub: OpenAIStub, vendor: OpenAIVendor, path: str, plan: Plan, code: str, retryable: bool
) -> None:
    stub.plan(path, plan)
    work: Any = {
        CHAT: lambda: chat(vendor),
        SPEECH: lambda: speak(vendor, SpeechRequest("Hello.")),
        TRANSCRIPTIONS: lambda: hear(vendor, np.zeros(RATE_IN, np.int16)),
    }[path]
    with pytest.raises(EngineError) as caught:
        await work()
    assert (caught.value.code, caught.value.retryable) == (code, retryable)
    assert caught.value.engine == "acme/m"
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert len(stub.requests(path)) == 1


@pytest.mark.parametrize(
    ("path", "plan"),
    [
        pytest.param(CHAT, Plan(garbage=True), id="chat garbage"),
        pytest.param(CHAT, Plan(garbage=True, after=3), id="chat garbage later"),
        pytest.param(CHAT, Plan(body=b"<html>hello</html>", content_type="text/html"), id="chat html"),
        pytest.param(CHAT, Plan(body=b"[1]", content_type="application/json"), id="chat json list"),
        pytest.param(CHAT, Plan(body=b'data: {"error": {"message": "overloaded"}}\n\n'), id="chat error event"),
        pytest.param(CHAT, Plan(body=b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'), id="chat cut off"),
        pytest.param(CHAT, Plan(body=b"data: " + b"x" * (1 << 21)), id="chat endless line"),
        pytest.param(SPEECH, Plan(body=b'{"audio": 1}', content_type="application/json"), id="speech json"),
        pytest.param(SPEECH, Plan(body=b"ID3\x04" + bytes(5000), content_type="audio/mpeg"), id="speech mp3"),
        pytest.param(SPEECH, Plan(body=b"", content_type="audio/pcm"), id="speech empty"),
        pytest.param(TRANSCRIPTIONS, Plan(garbage=True), id="transcript garbage"),
        pytest.param(TRANSCRIPTIONS, Plan(body=b'{"text": 1}', content_type="application/json"), id="no text"),
        pytest.param(TRANSCRIPTIONS, Plan(body=b'{"text": "' + b"x" * (1 << 21) + b'"}'), id="endless transcript"),
    ],
)
async def test_nonsense_is_a_bad_response(stub: OpenAIStub, vendor: OpenAIVendor, path: str, plan: Plan) -> None:
    stub.plan(path, plan)
    work: Any = {
        CHAT: lambda: chat(vendor),
        SPEECH: lambda: speak(vendor, SpeechRequest("Hello.")),
        TRANSCRIPTIONS: lambda: hear(vendor, np.zeros(RATE_IN, np.int16)),
    }[path]
    with pytest.raises(EngineError) as caught:
        await work()
    assert caught.value.code == "bad_response"


@pytest.mark.parametrize("path", [CHAT, SPEECH])
async def test_a_connection_lost_in_the_middle(stub: OpenAIStub, vendor: OpenAIVendor, path: str) -> None:
    stub.plan(path, Plan(reset=True, after=3))
    with pytest.raises(EngineError) as caught:
        await (chat(vendor) if path == CHAT else speak(vendor, SpeechRequest("Hello.")))
    assert caught.value.code == "connection_failed"


@pytest.mark.parametrize("after", [0, 3])
async def test_a_vendor_that_hangs_times_out(stub: OpenAIStub, after: int) -> None:
    vendor = OpenAIVendor("acme", settings(stub, timeout_seconds=0.2))
    stub.plan(CHAT, Plan(hang=True, after=after))
    with pytest.raises(EngineError) as caught:
        await chat(vendor)
    assert caught.value.code == "timeout"
    await stub.until(lambda: stub.requests(CHAT)[0].closed_early)
    await vendor.close(None)


async def test_nobody_there(stub: OpenAIStub) -> None:
    vendor = OpenAIVendor("acme", settings(stub, base_url="http://127.0.0.1:1/v1"))
    with pytest.raises(EngineError) as caught:
        await chat(vendor)
    assert caught.value.code == "connection_failed"
    await OpenAIChat(vendor, "m").start()  # only logged
    await vendor.close(None)


async def test_an_error_body_without_end_is_cut(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    stub.plan(CHAT, Plan(status=500, message="x" * (1 << 20)))
    with pytest.raises(EngineError) as caught:
        await chat(vendor)
    assert caught.value.code == "bad_response"
    assert len(str(caught.value)) < 400


async def test_what_json_cannot_carry(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    with pytest.raises(EngineError) as caught:
        await chat(vendor, ChatRequest(HELLO.messages, [Tool("a", parameters={"x": object()})]))
    assert caught.value.code == "bad_request"
    assert stub.journal == []
    await chat(vendor, ChatRequest([Message("user", "half a pair: \ud800, é")]))
    assert stub.requests(CHAT)[0].body["messages"][0]["content"] == "half a pair: ?, é"


# --- the client ---------------------------------------------------------------------------------


async def test_no_key_of_the_environment_goes_to_another_address(
    stub: OpenAIStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-environment")
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "sk-admin")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-environment")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1")
    vendor = OpenAIVendor("local", settings(stub, key=None))
    await chat(vendor)
    headers = stub.requests(CHAT)[0].headers
    assert "authorization" not in headers
    assert "openai-organization" not in headers
    assert "environment" not in str(headers)
    await vendor.close(None)


async def test_starting_warms_one_connection_for_all_engines(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    engines = [OpenAIChat(vendor, "m"), OpenAITextToSpeech(vendor, "m"), OpenAISpeechToText(vendor, "m")]
    await asyncio.gather(*(engine.start() for engine in engines))
    await engines[0].start()
    await chat(vendor)
    assert len(stub.requests(MODELS)) == 1
    assert len({record.client for record in stub.journal}) == 1


async def test_closing_one_engine_leaves_the_others(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    first, second = OpenAIChat(vendor, "m"), OpenAIChat(vendor, "n")
    await first.start()
    await second.start()
    async with second.stream(HELLO) as deltas:
        await anext(deltas)
        await first.close()
        assert [delta async for delta in deltas][-1] == ChatEnd("stop", Usage(11, 5, 3))
    await second.close()


# --- speech to text -----------------------------------------------------------------------------


async def test_an_utterance_is_sent_as_one_wav_file(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    pcm = np.arange(-8000, 8000, dtype=np.int16)
    found = await hear(vendor, pcm, SttOptions(language="de-CH", prompt="Rösti"))
    assert found == [Transcript("what was said", final=True)]
    record = stub.requests(TRANSCRIPTIONS)[0]
    assert record.wav is not None
    assert record.samples is not None
    assert record.wav[:3] == (1, 2, RATE_IN)
    assert np.array_equal(record.samples, pcm)
    assert record.body == {"model": "m", "response_format": "json", "language": "de", "prompt": "Rösti"}


@pytest.mark.parametrize("samples", [0, 1500])
async def test_too_little_audio_is_not_sent(stub: OpenAIStub, vendor: OpenAIVendor, samples: int) -> None:
    assert await hear(vendor, np.zeros(samples, np.int16)) == [Transcript("", final=True)]
    assert stub.journal == []


async def test_an_utterance_is_bounded(vendor: OpenAIVendor) -> None:
    async with OpenAISpeechToText(vendor, "m").stream(SttOptions()) as stream:
        second = np.zeros(RATE_IN, np.int16)
        for _ in range(int(MAX_UTTERANCE_S)):
            stream.push(second)
        with pytest.raises(EngineError) as caught:
            stream.push(second)
        assert caught.value.code == "audio_overflow"


async def test_leaving_an_utterance_closes_the_connection(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    stub.plan(TRANSCRIPTIONS, Plan(hang=True))
    async with OpenAISpeechToText(vendor, "m").stream(SttOptions()) as stream:
        stream.push(np.zeros(RATE_IN, np.int16))
        stream.finish()
        await stub.until(lambda: len(stub.requests(TRANSCRIPTIONS)) == 1)
    await stub.until(lambda: stub.requests(TRANSCRIPTIONS)[0].closed_early)


async def test_leaving_before_the_end_sends_nothing(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    async with OpenAISpeechToText(vendor, "m").stream(SttOptions()) as stream:
        stream.push(np.zeros(RATE_IN, np.int16))
    assert stub.journal == []


# --- text to speech -----------------------------------------------------------------------------


async def test_speech_arrives_whole_however_it_is_torn(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    chunks = await speak(vendor, SpeechRequest("Hello there, friend.", voice="nova", speed=1.25))
    assert len(chunks) > 2
    assert np.concatenate([chunk.pcm for chunk in chunks]).astype("<i2").tobytes() == stub.tone()
    assert stub.requests(SPEECH)[0].body == {
        "model": "m",
        "input": "Hello there, friend.",
        "voice": "nova",
        "response_format": "pcm",
        "speed": 1.25,
    }


async def test_every_word_gets_a_time_within_the_audio(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    stub.speech_ms = 3000
    sentence = "Hello there, friend of mine. How do you do?"
    chunks = await speak(vendor, SpeechRequest(sentence))
    words = [word for chunk in chunks for word in chunk.words]
    assert [sentence[word.start : word.end] for word in words] == sentence.split()
    assert words[0].at_ms == 0
    assert [word.at_ms for word in words] == sorted(word.at_ms for word in words)
    assert words[-1].at_ms < 3000


@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000, 48_000])
async def test_wav_of_any_rate_becomes_24_khz(stub: OpenAIStub, rate: int) -> None:
    vendor = OpenAIVendor("acme", settings(stub, speech_format="wav"))
    stub.speech_rate = rate
    pcm = np.concatenate([chunk.pcm for chunk in await speak(vendor, SpeechRequest("Hello there."))]).astype(float)
    assert abs(len(pcm) - 24 * stub.speech_ms) < 24 * 5
    spectrum = np.abs(np.fft.rfft(pcm))
    assert abs(np.argmax(spectrum) * 24_000 / len(pcm) - 440) < 3
    await vendor.close(None)


async def test_a_wav_file_where_raw_audio_was_asked_for(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    from realtime.adapters.wav import wav

    pcm = np.arange(2400, dtype=np.int16)
    stub.plan(SPEECH, Plan(body=wav(pcm, 24_000), content_type="audio/pcm"))
    chunks = await speak(vendor, SpeechRequest("Hello."))
    assert np.array_equal(np.concatenate([chunk.pcm for chunk in chunks]), pcm)


async def test_leaving_speech_closes_the_connection(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    stub.plan(SPEECH, Plan(hang=True, after=2))
    async with OpenAITextToSpeech(vendor, "m").stream(SpeechRequest("Hello there.")) as chunks:
        assert len((await anext(chunks)).pcm) in (2400, 4801)  # one piece, or both when they arrived together
    await stub.until(lambda: stub.requests(SPEECH)[0].closed_early)


async def test_nothing_to_say_is_not_sent(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    assert await speak(vendor, SpeechRequest("  …")) == []
    assert stub.journal == []


# --- the contract of every engine ---------------------------------------------------------------


@pytest.fixture(params=["alone", "first of"])
def alone(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "alone")


async def test_the_recogniser_keeps_the_contract(stub: OpenAIStub, vendor: OpenAIVendor, alone: bool) -> None:
    engine = OpenAISpeechToText(vendor, "m")
    await conformance.check_speech_to_text(
        engine if alone else FirstOfSpeechToText([engine]), np.ones(RATE_IN, np.int16)
    )
    await conformance.check_recognition_bounded(engine if alone else FirstOfSpeechToText([engine]), MAX_UTTERANCE_S)


async def test_the_chat_model_keeps_the_contract(stub: OpenAIStub, vendor: OpenAIVendor, alone: bool) -> None:
    engine = OpenAIChat(vendor, "m")
    stub.answers_with_tools_when_asked('{"location": "London"}')
    await conformance.check_chat_model(engine if alone else FirstOfChat([engine]))


async def test_the_voice_keeps_the_contract(stub: OpenAIStub, vendor: OpenAIVendor, alone: bool) -> None:
    engine = OpenAITextToSpeech(vendor, "m")
    stub.speech_ms = 2000
    await conformance.check_text_to_speech(engine if alone else FirstOfTextToSpeech([engine]))


# --- by way of the settings ---------------------------------------------------------------------


async def test_a_call_through_two_vendors_of_which_one_is_down(stub: OpenAIStub) -> None:
    stub.plan(MODELS, Plan(status=503))
    vendors = {
        "down": {"base_url": "http://127.0.0.1:1/v1"},
        "up": {"base_url": stub.base_url, "key": SecretStr(KEY)},
    }
    live = {kind: ["down/m", "up/m"] for kind in ("stt", "chat", "tts")}
    catalogue = Catalogue(Settings.model_validate({"vendors": vendors, "live": live}))
    await catalogue.start()
    engines = catalogue.engines(AgentSettings())
    async with engines.stt.stream(SttOptions()) as stream:
        stream.push(np.zeros(RATE_IN, np.int16))
        stream.finish()
        assert [heard async for heard in stream] == [Transcript("what was said", final=True)]
    async with engines.chat.stream(HELLO) as deltas:
        assert text([delta async for delta in deltas]) == "Hello there, friend."
    async with engines.tts.stream(SpeechRequest("Hello there.", voice="coral")) as chunks:
        assert sum([len(chunk.pcm) async for chunk in chunks]) == 24 * stub.speech_ms
    assert stub.requests(SPEECH)[0].body["voice"] == "coral"
    stub.plan(CHAT, Plan(status=429))
    with pytest.raises(AllFailed) as caught:
        async with engines.chat.stream(HELLO) as deltas:
            await anext(deltas)
    assert [attempt.code for attempt in caught.value.attempts] == ["connection_failed", "rate_limited"]
    await catalogue.close()
