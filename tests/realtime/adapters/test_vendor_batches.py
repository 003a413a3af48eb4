"""The batch interfaces of three vendors: what is sent, what comes back, what is cleared away."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from pydantic import SecretStr

from realtime.adapters.anthropic import AnthropicChat
from realtime.adapters.base import Batching, ChatEnd, ChatRequest, EngineError, Message, TextDelta, Usage
from realtime.adapters.gemini import GeminiChat
from realtime.adapters.openai import OpenAIChat
from realtime.adapters.openai_vendor import OpenAIVendor
from realtime.settings import VendorSettings
from tests.vendors.batches_stub import BatchesStub

KEY = SecretStr("sk-very-secret-0123456789")


@pytest.fixture(scope="module")
def served() -> Iterator[BatchesStub]:
    with BatchesStub().serve() as stub:
        yield stub


@pytest.fixture
def stub(served: BatchesStub) -> BatchesStub:
    vars(served).update({**vars(BatchesStub()), "url": served.url, "_changed": served._changed})
    return served


def openai(url: str | None, **values: bool) -> OpenAIChat:
    base_url = url and f"{url}/v1"
    return OpenAIChat(OpenAIVendor("oa", VendorSettings(base_url=base_url, key=KEY, **values)), "m")


def anthropic(url: str | None, **values: bool) -> AnthropicChat:
    return AnthropicChat("an", VendorSettings(kind="anthropic", base_url=url, key=KEY, **values), "m")


def gemini(url: str | None, **values: bool) -> GeminiChat:
    return GeminiChat("ge", VendorSettings(kind="gemini", base_url=url, key=KEY, **values), "m")


Make = Callable[..., OpenAIChat | AnthropicChat | GeminiChat]
each = pytest.mark.parametrize("make", [openai, anthropic, gemini])


@each
def test_the_vendors_own_address_has_batches_and_others_when_the_settings_say_so(make: Make) -> None:
    for url, values, has in (
        (None, {}, True),
        (None, {"batches": False}, False),
        ("http://127.0.0.1:9", {}, False),
        ("http://127.0.0.1:9", {"batches": True}, True),
    ):
        engine = make(url, **values)
        assert isinstance(engine, Batching)
        assert (engine.batches is not None) is has


@each
async def test_requests_go_out_together_and_each_gets_its_own_answer(stub: BatchesStub, make: Make) -> None:
    engine = make(stub.url, batches=True)
    assert engine.batches is not None
    requests = {
        "one": ChatRequest([Message("user", "say 1")], max_tokens=9, temperature=0.5),
        "two": ChatRequest([Message("user", "say 2")]),
        "bad": ChatRequest([Message("user", "fail")]),
    }
    batch = await engine.batches.submit(requests)
    assert await engine.batches.answers(batch) is None
    (sent,) = stub.sent
    assert sent.requests.keys() == requests.keys()
    assert "stream" not in sent.requests["one"]
    stub.finish()
    answers = await engine.batches.answers(batch)
    assert answers is not None
    for id_, text in (("one", "1"), ("two", "2")):
        assert answers[id_] == [TextDelta(text), ChatEnd("stop", Usage(100, 10))]
    refused = answers["bad"]
    assert isinstance(refused, EngineError)
    assert (refused.code, refused.retryable) == ("bad_request", False)
    assert "a bad request" in str(refused)
    await engine.batches.discard(batch)
    assert stub.deleted
    assert not stub.files
    await engine.close()


@each
async def test_what_is_cancelled_has_no_answers(stub: BatchesStub, make: Make) -> None:
    engine = make(stub.url, batches=True)
    assert engine.batches is not None
    batch = await engine.batches.submit({"one": ChatRequest([Message("user", "Hello")])})
    await engine.batches.cancel(batch)
    assert stub.sent[0].cancelled
    assert await engine.batches.answers(batch) == {}
    await engine.close()


@each
@pytest.mark.parametrize(("status", "code", "retryable"), [(401, "auth_failed", False), (429, "rate_limited", True)])
async def test_a_batch_that_is_refused(stub: BatchesStub, make: Make, status: int, code: str, retryable: bool) -> None:
    engine = make(stub.url, batches=True)
    assert engine.batches is not None
    stub.refusals = [status]
    with pytest.raises(EngineError) as caught:
        await engine.batches.submit({"one": ChatRequest([Message("user", "Hello")])})
    assert (caught.value.code, caught.value.retryable) == (code, retryable)
    await engine.close()


@pytest.mark.parametrize("make", [openai, gemini])
async def test_a_batch_that_failed_as_a_whole_says_so(stub: BatchesStub, make: Make) -> None:
    engine = make(stub.url, batches=True)
    assert engine.batches is not None
    batch = await engine.batches.submit({"one": ChatRequest([Message("user", "Hello")])})
    stub.finish("failed")
    with pytest.raises(EngineError, match="the batch failed") as caught:
        await engine.batches.answers(batch)
    assert caught.value.code == "batch_failed"
    await engine.close()
