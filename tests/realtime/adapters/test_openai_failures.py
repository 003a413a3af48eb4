"""A vendor behind an OpenAI-compatible address that fails: each failure has a name, and none tells the key."""

from typing import Any

import numpy as np
import pytest

from media.audio import RATE_IN
from realtime.adapters.base import (
    ChatRequest,
    EngineError,
    Message,
    SpeechRequest,
    Tool,
)
from realtime.adapters.openai import OpenAIChat
from realtime.adapters.openai_vendor import OpenAIVendor
from tests.realtime.adapters.asking import HELLO, KEY, chat, hear, settings, speak
from tests.vendors.openai_stub import CHAT, SPEECH, TRANSCRIPTIONS, OpenAIStub, Plan

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
