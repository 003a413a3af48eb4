"""Anthropic and Gemini by their SDKs, against their wire formats on a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pydantic import SecretStr

from realtime.adapters.anthropic import AnthropicChat
from realtime.adapters.base import (
    ChatEnd,
    ChatModel,
    ChatRequest,
    EngineError,
    ImagePart,
    Message,
    ResponseFormat,
    TextDelta,
    Tool,
    ToolCall,
    Usage,
)
from realtime.adapters.gemini import GeminiChat
from realtime.settings import VendorSettings
from realtime.testing.conformance import called, converse, said
from tests.vendors.wire import KEY, Wire, anthropic_events, parts, serving, text

PNG = "data:image/png;base64,iVBORw0KGgo="
WEATHER = Tool("weather", "The weather", {"type": "object", "properties": {"city": {"type": "string"}}})
TALK = [
    Message("system", "Be brief."),
    Message("user", "The weather here?", (ImagePart(PNG),)),
    Message("assistant", "", (), (ToolCall("c1", "weather", '{"city": "Paris"}'),)),
    Message("tool", "sunny", tool_call_id="c1"),
    Message("user", "And now?"),
]


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    async with serving(Wire()) as wire:
        yield wire


def anthropic(wire: Wire) -> AnthropicChat:
    settings = VendorSettings(kind="anthropic", base_url=wire.url, key=SecretStr(KEY), timeout_seconds=5)
    return AnthropicChat("an", settings, "claude-x")


def gemini(wire: Wire) -> GeminiChat:
    settings = VendorSettings(kind="gemini", base_url=wire.url, key=SecretStr(KEY), timeout_seconds=5)
    return GeminiChat("ge", settings, "gemini-x")


Make = Callable[[Wire], ChatModel]


HELLO: dict[Make, list[dict[str, Any]]] = {
    anthropic: anthropic_events(text("Hel"), text("lo")),
    gemini: [parts({"text": "Hel"}), parts({"text": "lo"}, finish="STOP")],
}
CALL: dict[Make, list[dict[str, Any]]] = {
    anthropic: anthropic_events(
        text("Let me see."),
        {"type": "content_block_start", "index": 1,
         "content_block": {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"city":'}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '"Paris"}'}},
        stop="tool_use",
    ),
    gemini: [
        parts({"text": "Let me see."}),
        parts({"functionCall": {"name": "weather", "args": {"city": "Paris"}}}, finish="STOP"),
    ],
}  # fmt: skip
both = pytest.mark.parametrize("make", [anthropic, gemini])


@both
async def test_text_usage_and_reason(wire: Wire, make: Make) -> None:
    wire.events = HELLO[make]
    deltas = await converse(make(wire), ChatRequest([Message("user", "Hello")]))
    assert deltas == [TextDelta("Hel"), TextDelta("lo"), ChatEnd("stop", Usage(10, 5, 2))]


@both
async def test_tool_calls(wire: Wire, make: Make) -> None:
    wire.events = CALL[make]
    deltas = await converse(make(wire), ChatRequest([Message("user", "Paris?")], [WEATHER], "required"))
    assert said(deltas) == "Let me see."
    ((id_, name, arguments),) = called(deltas)
    assert id_
    assert (name, arguments) == ("weather", {"city": "Paris"})
    assert isinstance(deltas[-1], ChatEnd)
    assert deltas[-1].finish_reason == "tool_calls"


async def test_what_anthropic_is_sent(wire: Wire) -> None:
    wire.events = HELLO[anthropic]
    form = ResponseFormat("json_schema", {"type": "object"})
    await converse(
        anthropic(wire),
        ChatRequest(TALK, [WEATHER], "tool:weather", 9, 0.5, response_format=form, cache_key="k"),
    )
    body = wire.bodies[0]
    assert (body["model"], body["system"], body["max_tokens"], body["temperature"]) == ("claude-x", "Be brief.", 9, 0.5)
    assert body["tools"] == [{"name": "weather", "description": "The weather", "input_schema": WEATHER.parameters}]
    assert body["tool_choice"] == {"type": "tool", "name": "weather"}
    assert body["cache_control"] == {"type": "ephemeral"}
    assert body["output_config"]["format"] == {"type": "json_schema", "schema": {"type": "object"}}
    roles = [message["role"] for message in body["messages"]]
    assert roles == ["user", "assistant", "user"]
    image, _ = body["messages"][0]["content"]
    assert image["source"] == {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    assert body["messages"][1]["content"] == [
        {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Paris"}}
    ]
    result, now = body["messages"][2]["content"]
    assert (result["type"], result["tool_use_id"], now["text"]) == ("tool_result", "c1", "And now?")


async def test_what_gemini_is_sent(wire: Wire) -> None:
    wire.events = HELLO[gemini]
    form = ResponseFormat("json_schema", {"type": "object"})
    await converse(gemini(wire), ChatRequest(TALK, [WEATHER], "tool:weather", 9, 0.5, response_format=form))
    assert wire.paths[0].startswith("/v1beta/models/gemini-x:streamGenerateContent")
    body = wire.bodies[0]
    assert body["systemInstruction"]["parts"][0]["text"] == "Be brief."
    config = body["generationConfig"]
    assert (config["temperature"], config["maxOutputTokens"]) == (0.5, 9)
    assert config["responseMimeType"] == "application/json"
    assert config["responseJsonSchema"] == {"type": "object"}
    assert body["tools"][0]["functionDeclarations"][0]["name"] == "weather"
    assert body["toolConfig"]["functionCallingConfig"]["allowedFunctionNames"] == ["weather"]
    assert [content["role"] for content in body["contents"]] == ["user", "model", "user"]
    assert body["contents"][0]["parts"][0]["inlineData"]["mime_type"] == "image/png"
    assert body["contents"][1]["parts"][0]["functionCall"]["args"] == {"city": "Paris"}
    assert body["contents"][2]["parts"][0]["functionResponse"]["name"] == "weather"


@both
@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [(400, "bad_request", False), (401, "auth_failed", False), (404, "not_found", False), (429, "rate_limited", True),
     (500, "bad_response", True), (503, "overloaded", True), (529, "overloaded", True), (504, "timeout", True)],
)  # fmt: skip
async def test_failures_have_names_and_never_the_key(
    wire: Wire, make: Make, status: int, code: str, retryable: bool
) -> None:
    wire.status, wire.headers = status, "Retry-After: 3\r\n"
    with pytest.raises(EngineError) as caught:
        await converse(make(wire), ChatRequest([Message("user", "Hello")]))
    assert (caught.value.code, caught.value.retryable) == (code, retryable)
    assert caught.value.retry_after == (3.0 if retryable else None)
    assert KEY not in str(caught.value)
    assert len(wire.bodies) == 1, "retries are made elsewhere"


@both
async def test_an_answer_that_stops_in_the_middle_is_an_error(wire: Wire, make: Make) -> None:
    wire.events = HELLO[make][:2]
    if make is gemini:
        wire.events = [parts({"text": "Hel"})]
    with pytest.raises(EngineError):
        await converse(make(wire), ChatRequest([Message("user", "Hello")]))


@both
async def test_leaving_closes_the_connection_at_once(wire: Wire, make: Make) -> None:
    wire.events, wire.hang = HELLO[make][:2], True
    async with make(wire).stream(ChatRequest([Message("user", "Hello")])) as deltas:
        assert await anext(deltas) == TextDelta("Hel")
    await asyncio.wait_for(wire.closed.wait(), 3)


@both
async def test_nobody_there_is_a_failed_connection(wire: Wire, make: Make) -> None:
    wire.url = "http://127.0.0.1:9"
    with pytest.raises(EngineError) as caught:
        await converse(make(wire), ChatRequest([Message("user", "Hello")]))
    assert caught.value.code == "connection_failed"
