"""The one-shot methods of the Python client: shapes of results, streams that are dictionaries, errors, jobs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from realtime.client import AI, ApiError, AsyncAI, ai, infra
from realtime.client.results import ChatStream, Events, Result
from tests.realtime.gateway.server import INSTANT, KEY, Running, model, running, settings, vendor
from tests.vendors.openai_stub import CHAT, OpenAIStub, Plan


@pytest.fixture(scope="module")
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub().serve() as stub:
        yield stub


@pytest.fixture(scope="module")
def server(stub: OpenAIStub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    models = [model("m", "v"), model("e", "v", "embed"), model("s", "v", "tts"), model("h", "v", "stt")]
    configured = settings(
        tmp_path_factory.mktemp("server"), vendors={"v": vendor(stub.base_url)}, models=models, live=INSTANT
    )
    with running(configured) as server:
        yield server


@pytest.fixture
def client(server: Running) -> Iterator[AI]:
    with AI(api_key=KEY, base_url=server.url) as client:
        yield client


def test_importing_it_loads_neither_http_nor_the_server() -> None:
    code = "import sys, realtime.client as c; c.ai; print(sorted({'httpx2', 'fastapi', 'av'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


def test_activate_says_which_server_and_hides_the_key(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFRAI_API_KEY", KEY)
    monkeypatch.setenv("INFRAI_BASE_URL", server.url)
    found = infra.activate()
    assert found["base_url"] == server.url
    assert KEY not in found["api_key"]
    assert ai.chat("Hello")["content"]


def test_every_parameter_of_chat_is_sent(client: AI, stub: OpenAIStub) -> None:
    client.chat(
        "Hello", model="m", vendor="v", task="coding", prefer="smartest", temperature=0.5, max_tokens=9,
        response_format={"type": "text"}, tools=[{"name": "t", "parameters": {"type": "object"}}], tool_choice="none",
        cache_strategy="none", batch_mode=False, max_cost_multiplier=2, timeout_seconds=30, idempotency_key="client-1",
    )  # fmt: skip
    body = stub.requests(CHAT)[-1].body
    assert (body["temperature"], body["max_tokens"], body["tool_choice"]) == (0.5, 9, "none")
    assert client.chat(messages=[{"role": "user", "content": "Hi"}]).content == "Hello there, friend."


def test_content_is_text_too_and_missing_keys_read_none(client: AI) -> None:
    result = client.chat("Hello")
    assert result["text"] == result.content == "Hello there, friend."
    assert result.tool_calls is None
    assert result.metadata.vendor == "v"


def test_a_stream_is_a_dictionary_and_an_iterable_and_both_again(client: AI) -> None:
    stream = client.chat("Hello", stream=True)
    assert isinstance(stream, dict)
    first = next(iter(stream))
    assert first.delta.content == "Hello"
    assert first.delta.tool_calls is None
    assert stream["content"] == "Hello there, friend."
    assert "".join(chunk.delta.content or "" for chunk in stream) == stream["content"]
    assert len(list(stream)) == 6
    for whole in (dict(stream), {**stream}, json.loads(json.dumps(dict(stream)))):
        assert whole["finish_reason"] == "stop"
        assert whole["_metadata"]["vendor"] == "v"


def test_reading_a_stream_as_a_dictionary_first_works_too(client: AI) -> None:
    stream = client.chat("Hello", stream=True)
    assert "usage" in stream
    assert stream.usage["total_tokens"] == 16
    assert len(list(stream)) == 6


def test_a_streamed_tool_call_is_put_together(client: AI, stub: OpenAIStub) -> None:
    stub.tool_calls = [("t", '{"a": 12}')]
    try:
        result = dict(client.chat("Hello", stream=True, tools=[{"name": "t"}]))
    finally:
        stub.tool_calls = []
    assert result["tool_calls"][0]["function"] == {"name": "t", "arguments": '{"a": 12}'}
    assert result["content"] is None


def test_leaving_a_stream_ends_it_at_the_vendor(client: AI, stub: OpenAIStub) -> None:
    from tests.realtime.gateway.server import wait

    stub.plan(CHAT, Plan(hang=True, after=3))
    with client.chat("Hello", stream=True, vendor="v") as stream:
        next(iter(stream))
    wait(lambda: stub.requests(CHAT)[-1].closed_early)


def test_errors_are_typed(client: AI, stub: OpenAIStub) -> None:
    with pytest.raises(ApiError, match="gpt-nine") as caught:
        client.chat("Hello", model="gpt-nine")
    assert (caught.value.status, caught.value.code) == (404, "model_not_found")
    assert caught.value.request_id
    with pytest.raises(ApiError):
        client.chat("Hello", model="gpt-nine", stream=True)
    stub.plan(CHAT, Plan(reset=True, after=3))
    stream = client.chat("Hello", stream=True)
    with pytest.raises(ApiError, match="connection"):
        list(stream)
    with pytest.raises(TypeError):
        client.chat()


def test_a_stream_without_its_end_mark_is_broken() -> None:
    stream = ChatStream(iter(['data: {"delta": {"content": "x"}, "index": 0}', ""]), lambda: None)
    with pytest.raises(ApiError, match="middle"):
        dict(stream)
    with pytest.raises(ApiError, match="middle"):
        stream.get("content")


def test_comments_and_unknown_lines_are_passed_over() -> None:
    events = Events()
    assert events.line(": keep-alive") is None
    assert events.line("retry: 3") is None
    assert events.line("data: [DONE]") is None
    assert events.done


def test_the_other_methods_send_what_they_are_given(client: AI, stub: OpenAIStub) -> None:
    assert len(client.embed("x", dimensions=5)["embeddings"][0]) == 5
    assert len(client.embed.create(["x", "y"])["embeddings"]) == 2
    assert client.image("A raccoon", size="64x64", n=2, include=["b64"])["images"][1].b64
    assert client.tts("Hello.", voice="alloy", format="ogg").audio_url.partition("?")[0].endswith(".ogg")
    with open("tests/audio/synth_flite_slt_how_are_you.wav", "rb") as file:
        assert client.asr(file.read(), language="en").text == "what was said"
    token = client.realtime.token(ttl_seconds=300)
    assert {"session_id", "ice_servers", "token", "expires_at"} <= token.keys()


def test_a_job_that_is_not_done_can_be_waited_for(client: AI, stub: OpenAIStub) -> None:
    stub.plan(CHAT, Plan(status=500), times=1)  # the first try fails, and the wait before the second is the delay
    job = client.chat("Hello", batch_mode=True, timeout_seconds=0.25)
    result = job.wait(20) if job.object == "batch_job" else job
    assert result["content"] == "Hello there, friend."


async def test_the_async_twin(server: Running, stub: OpenAIStub) -> None:
    async with AsyncAI(api_key=KEY, base_url=server.url) as client:
        assert (await client.chat("Hello")).text == "Hello there, friend."
        stream = await client.chat("Hello", stream=True)
        assert [chunk.delta.content async for chunk in stream][:2] == ["Hello", " there"]
        whole = await (await client.chat("Hello", stream=True)).result()
        assert whole.metadata.vendor == "v"
        assert len((await client.embed.create("x"))["embeddings"]) == 1
        with pytest.raises(ApiError):
            await client.chat("Hello", model="gpt-nine")


def test_results_are_plain_dictionaries() -> None:
    value: dict[str, Any] = Result({"a": {"b": [{"c": 1}]}})
    assert json.loads(json.dumps(value)) == {"a": {"b": [{"c": 1}]}}
    assert value["a"].b[0].c == 1
