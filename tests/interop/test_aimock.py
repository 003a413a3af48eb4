"""`@copilotkit/aimock`: vendors that nobody here wrote, in the shapes of OpenAI, Anthropic and Google.

Engines and endpoints against it as they are against the vendors: streams, tools, embeddings, pictures, speech,
transcripts, its refusals and its chaos.
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
from pydantic import SecretStr

from media.audio import RATE_IN
from realtime.adapters.anthropic import AnthropicChat
from realtime.adapters.base import ChatEnd, ChatRequest, Message, TextDelta, Usage
from realtime.adapters.embedded.drawing import png
from realtime.adapters.gemini import GeminiChat
from realtime.adapters.openai import OpenAIChat, OpenAISpeechToText, OpenAITextToSpeech
from realtime.adapters.openai_media import OpenAIEmbedder, OpenAIImages
from realtime.adapters.openai_vendor import OpenAIVendor
from realtime.adapters.wav import wav
from realtime.settings import LimitSettings, VendorSettings
from realtime.testing.conformance import Abilities, Engine, check, tone
from tests.realtime.gateway.server import CHAT, INSTANT, Running, model, running, settings, vendor

STORY = "Once there was a raccoon who wanted to know."
SPEECH = (8000 * np.sin(np.arange(36_000) / 9)).astype("<i2").tobytes()
"""1.5 s at 24 kHz."""
USAGE = {
    "prompt_tokens": 11, "completion_tokens": 10, "input_tokens": 11, "output_tokens": 10,
    "promptTokenCount": 11, "candidatesTokenCount": 10, "totalTokenCount": 21,
}  # fmt: skip
HEARD = {
    "text": "what was said",
    "language": "english",
    "duration": 1.5,
    "words": [{"word": "what", "start": 0.1, "end": 0.4}, {"word": "was", "start": 0.5, "end": 0.7},
              {"word": "said", "start": 0.8, "end": 1.2}],
    "segments": [{"id": 0, "text": "what was said", "start": 0.0, "end": 1.5}],
}  # fmt: skip


def refusal(words: str, status: int, kind: str, **more: Any) -> dict[str, Any]:
    return {
        "match": {"userMessage": words},
        "response": {"error": {"message": f"no: {kind}", "type": kind}, "status": status, **more},
    }


FIXTURES: list[dict[str, Any]] = [
    refusal("too busy", 429, "rate_limit_error", retryAfter=30),
    refusal("overloaded", 503, "overloaded_error"),
    refusal("no such key", 401, "authentication_error"),
    refusal("a bad request", 400, "invalid_request_error"),
    {"match": {"userMessage": "without tools"}, "response": {"content": STORY}},
    {
        "match": {"toolName": "get_weather", "hasToolResult": False},
        "response": {"toolCalls": [{"name": "get_weather", "arguments": '{"location": "London"}'}]},
    },
    {"match": {"userMessage": "as JSON"}, "response": {"content": '{"animal": "raccoon"}'}},
    {"match": {"endpoint": "image"},
     "response": {"images": [{"b64Json": base64.b64encode(png(np.zeros((4, 4, 3), np.uint8))).decode()}]}},
    {"match": {"endpoint": "speech"},
     "response": {"audio": base64.b64encode(SPEECH).decode(), "format": "pcm"}},
    {"match": {"endpoint": "transcription"}, "response": {"transcription": HEARD}},
    {"match": {"endpoint": "chat"}, "response": {"content": STORY, "usage": USAGE}},
]  # fmt: skip


@contextlib.contextmanager
def mocking(folder: Path, fixtures: Path) -> Iterator[str]:
    """The address of a vendor of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["node", "node_modules/.bin/llmock", "-p", str(port), "-f", str(fixtures), "--chunk-size", "8"]
    with subprocess.Popen([*command, "--log-level", "warn"], cwd=folder) as process:
        try:
            wait_for(f"http://127.0.0.1:{port}/v1/models", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 20) -> None:
    until = time.monotonic() + seconds
    while True:
        assert process.poll() is None, "it did not start"
        with contextlib.suppress(httpx2.TransportError):
            httpx2.get(url, trust_env=False)
            return
        assert time.monotonic() < until, "it does not answer"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def aimocks(environment: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """Two vendors."""
    folder = environment("vendors")
    fixtures = tmp_path_factory.mktemp("aimock") / "fixtures.json"
    fixtures.write_text(json.dumps({"fixtures": FIXTURES}), encoding="utf-8")
    with mocking(folder, fixtures) as first, mocking(folder, fixtures) as second:
        yield [first, second]


def openai_engine(kind: type, url: str) -> Engine:
    return kind(OpenAIVendor("openai", VendorSettings(base_url=f"{url}/v1", key=SecretStr("k"))), "gpt-4o")


def own_sdk(kind: type, url: str) -> Engine:
    name = "anthropic" if kind is AnthropicChat else "gemini"
    return kind(name, VendorSettings(kind=name, base_url=url, key=SecretStr("k")), f"{name}-x")


@pytest.mark.parametrize(
    ("kind", "make", "abilities"),
    [
        (OpenAIChat, openai_engine, Abilities()),
        (AnthropicChat, own_sdk, Abilities()),
        (GeminiChat, own_sdk, Abilities()),
        (OpenAIEmbedder, openai_engine, Abilities(dimensions=12)),
        (OpenAIImages, openai_engine, Abilities(size=(512, 512))),
        (OpenAITextToSpeech, openai_engine, Abilities()),
        (OpenAISpeechToText, openai_engine, Abilities()),
    ],
)
async def test_every_adapter_holds_its_contract(
    aimocks: list[str], kind: type, make: Callable[[type, str], Engine], abilities: Abilities
) -> None:
    await check(lambda: make(kind, aimocks[0]), abilities)


async def test_a_batch_of_openais_shape(aimocks: list[str]) -> None:
    """Its third look says that it is done; it answers every request with the same words."""
    settings = VendorSettings(base_url=f"{aimocks[0]}/v1", key=SecretStr("k"), batches=True)
    engine = OpenAIChat(OpenAIVendor("openai", settings), "gpt-4o")
    batches = engine.batches
    assert batches is not None
    batch = await batches.submit({id_: ChatRequest([Message("user", id_)]) for id_ in ("one", "two")})
    assert await batches.answers(batch) is None
    done = [TextDelta("Mock batch completion"), ChatEnd("stop", Usage(1, 1))]
    assert await batches.answers(batch) == {"one": done, "two": done}
    await batches.discard(batch)
    await engine.close()


# --- the endpoints ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(aimocks: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    first, second = aimocks
    vendors = {
        "openai": vendor(f"{first}/v1", batches=True),
        "spare": vendor(f"{second}/v1"),
        "anthropic": vendor(first, kind="anthropic"),
        "gemini": vendor(first, kind="gemini"),
    }
    models = [
        model("gpt", "openai", quality={"general": 80}),
        model("gpt-spare", "spare", quality={"general": 70}),
        model("claude", "anthropic", quality={"general": 60}),
        model("gemini", "gemini", quality={"general": 50}),
        model("embed", "openai", "embed"),
        model("draw", "openai", "image"),
        model("say", "openai", "tts"),
        model("hear", "openai", "stt"),
    ]
    limits = LimitSettings(requests_per_minute=60_000)
    configured = settings(
        tmp_path_factory.mktemp("server"), vendors=vendors, models=models, live=INSTANT, limits=limits
    )
    with running(configured) as started:
        started.gateway.jitter = lambda least, most: least / 10
        yield started


@pytest.fixture(autouse=True)
def all_is_well(request: pytest.FixtureRequest) -> None:
    """Breakers closed."""
    if "server" in request.fixturenames:
        catalogue = request.getfixturevalue("server").gateway.catalogue
        for offer in catalogue.offers:
            catalogue.breaker(offer).__init__()  # type: ignore[misc]


CHATS = ("gpt", "claude", "gemini")
TOOL = {"name": "get_weather", "parameters": {"type": "object", "properties": {"location": {"type": "string"}}}}


@pytest.mark.parametrize("name", CHATS)
def test_the_same_question_has_the_same_answer_everywhere(server: Running, name: str) -> None:
    answer = server.ok(CHAT, messages="Tell me a story", model=name)
    assert (answer["content"], answer["finish_reason"]) == (STORY, "stop")
    assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == (11, 10)
    assert answer["metadata"]["cost_usd"] == pytest.approx(11 * 1e-6 + 10 * 2e-6)
    events = server.events(messages="Tell me a story", model=name)
    assert "".join(data["delta"].get("content", "") for _, data in events[:-1]) == STORY
    assert len(events) > 3, "it came in pieces"
    assert events[-1] == ("message", "[DONE]")
    assert events[-2][1]["usage"] == answer["usage"]


@pytest.mark.parametrize("name", CHATS)
def test_a_tool_is_called_and_its_result_answered(server: Running, name: str) -> None:
    asked = [{"role": "user", "content": "the weather?"}]
    answer = server.ok(CHAT, messages=asked, model=name, tools=[TOOL])
    assert (answer["content"], answer["finish_reason"]) == (None, "tool_calls")
    (call,) = answer["tool_calls"]
    assert call["function"]["name"] == "get_weather"
    assert json.loads(call["function"]["arguments"]) == {"location": "London"}
    told = [*asked, {"role": "assistant", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": call["id"], "content": "sunny"}]  # fmt: skip
    assert server.ok(CHAT, messages=told, model=name, tools=[TOOL])["content"] == STORY


@pytest.mark.parametrize("name", CHATS)
def test_structured_output_and_what_it_is_when_it_does_not_come(server: Running, name: str) -> None:
    schema = {"type": "object", "properties": {"animal": {"type": "string"}}, "required": ["animal"]}
    form = {"type": "json_schema", "schema": schema}
    answer = server.ok(CHAT, messages="An animal as JSON", model=name, response_format=form)
    assert json.loads(answer["content"]) == {"animal": "raccoon"}
    assert server.error(502, CHAT, messages="A story", model=name, response_format=form)["code"] == (
        "invalid_structured_output"
    )


def test_pictures_are_looked_at_by_all(server: Running) -> None:
    image = {"base64": base64.b64encode(png(np.zeros((4, 4, 3), np.uint8))).decode()}
    for name in CHATS:
        assert server.ok("/v1/ai/vision", prompt="What?", images=[image], model=name)["content"] == STORY


def test_vectors_pictures_speech_and_transcripts(server: Running) -> None:
    vectors = server.ok("/v1/ai/embed", input=["one", "two"], dimensions=7, model="embed")["embeddings"]
    assert [len(vector) for vector in vectors] == [7, 7]
    (image,) = server.ok("/v1/ai/image", prompt="A cat", model="draw")["images"]
    assert server.client.get(image["url"]).content.startswith(b"\x89PNG")
    said = server.ok("/v1/ai/tts", input="Hello there.", model="say", format="pcm")
    assert len(server.client.get(said["audio_url"]).content) == len(SPEECH)
    recording = base64.b64encode(wav(tone(), RATE_IN)).decode()
    heard = server.ok("/v1/ai/asr", audio={"base64": recording}, model="hear")
    assert (heard["text"], heard["language"]) == ("what was said", "en")
    assert [word["word"] for word in heard["segments"][0]["words"]] == ["what", "was", "said"]


def test_a_batch_job_is_done_by_the_vendors_batch(server: Running) -> None:
    vendors = server.gateway.batches.vendors  # type: ignore[attr-defined]
    vendors.collect_s, vendors.poll_s = 0.1, (0.1, 0.5)
    answer = server.ok(CHAT, messages="Tell me a story", model="gpt", batch_mode=True)
    assert answer["content"] == "Mock batch completion"
    assert "batch_unsupported" not in answer["metadata"]["warnings"]
    assert answer["metadata"]["discount"] is None, "its price is not known"


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize(
    ("words", "status", "code"),
    [
        ("too busy", 429, "vendor_rate_limited"),
        ("overloaded", 503, "vendor_overloaded"),
        ("no such key", 502, "vendor_auth"),
        ("a bad request", 422, "vendor_refused"),
    ],
)
def test_refusals_are_said_alike(server: Running, name: str, words: str, status: int, code: str) -> None:
    response = server.post(CHAT, messages=words, model=name, timeout_seconds=5)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    if status == 429:
        assert int(response.headers["Retry-After"]) >= 1


def test_with_chaos_at_two_vendors_nearly_all_is_answered(server: Running, aimocks: list[str]) -> None:
    """30 % of 429 and 20 % of broken connections at both, each of which says to come back in a second."""
    chaos = {"rateLimitRate": 0.3, "disconnectRate": 0.2}
    for url in aimocks:
        assert httpx2.post(f"{url}/__aimock/chaos", json=chaos, trust_env=False).is_success

    def ask(number: int) -> dict[str, Any]:
        response = server.post(CHAT, messages=f"Story {number}", prefer="smartest", timeout_seconds=30)
        return {"status": response.status_code, **response.json()}

    try:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(200)))
    finally:
        for url in aimocks:
            httpx2.request("DELETE", f"{url}/__aimock/chaos", trust_env=False)
    good = [answer for answer in answers if answer["status"] == 200]
    assert len(good) >= 0.99 * len(answers), [answer for answer in answers if answer["status"] != 200][:3]
    assert all(answer["content"] == STORY for answer in good)
    assert any(answer["metadata"]["failover"] for answer in good)
