"""Chat behind an OpenAI-compatible address, the client, and the contract, against a stub vendor on a real socket."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from media.audio import RATE_IN
from realtime.adapters.base import (
    ChatEnd,
    ChatRequest,
    ImagePart,
    Message,
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
from tests.realtime.adapters.asking import HELLO, KEY, chat, hear, settings, speak, text
from tests.vendors.openai_stub import CHAT, MODELS, SPEECH, TRANSCRIPTIONS, OpenAIStub, Plan


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
