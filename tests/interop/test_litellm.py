"""A LiteLLM proxy: another project's server of OpenAI's API, with a stub vendor behind it.

Our engines speak to it as they do to any OpenAI-compatible address, and hold their contract.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import pytest
from pydantic import SecretStr

from benchmarks import litellm_proxy
from benchmarks.server import free_port
from realtime.adapters.base import ChatEnd, ChatModel, ChatRequest, Embedder, EngineError, Message, Usage
from realtime.adapters.embedded.drawing import png
from realtime.adapters.openai import OpenAIChat, OpenAISpeechToText, OpenAITextToSpeech
from realtime.adapters.openai_media import OpenAIEmbedder, OpenAIImages
from realtime.adapters.openai_vendor import OpenAIVendor
from realtime.settings import VendorSettings
from realtime.testing.conformance import Abilities, Engine, check, converse, embed, said
from tests.vendors.openai_stub import CHAT, OpenAIStub, Plan

CHAT_MODEL = "m"
EMBEDDING_MODEL = "text-embedding-3-small"
"""LiteLLM passes `dimensions` on for models of which it knows that they take them."""


@pytest.fixture(scope="module")
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub().serve() as stub:
        stub.answers_with_tools_when_asked('{"location": "London"}')
        stub.speech_ms = 1500
        stub.picture = png(np.zeros((4, 4, 3), np.uint8))
        yield stub


@pytest.fixture(scope="module")
def proxy(stub: OpenAIStub) -> Iterator[str]:
    litellm_proxy.install()
    port, behind = free_port(), urlsplit(stub.base_url).port
    assert behind is not None
    with litellm_proxy.litellm_proxy(behind, port, (), (CHAT_MODEL, EMBEDDING_MODEL)):
        yield f"http://127.0.0.1:{port}/v1"


def engine(kind: type, url: str, key: str = litellm_proxy.KEY) -> Engine:
    settings = VendorSettings(base_url=url, key=SecretStr(key))
    model = EMBEDDING_MODEL if kind is OpenAIEmbedder else CHAT_MODEL
    made: Engine = kind(OpenAIVendor("litellm", settings), model)
    return made


@pytest.mark.parametrize(
    ("kind", "abilities"),
    [
        (OpenAIChat, Abilities()),
        (OpenAIEmbedder, Abilities(dimensions=16)),
        (OpenAIImages, Abilities(size=(512, 512))),
        (OpenAITextToSpeech, Abilities()),
        (OpenAISpeechToText, Abilities()),
    ],
)
async def test_every_adapter_holds_its_contract(proxy: str, kind: type, abilities: Abilities) -> None:
    await check(lambda: engine(kind, proxy), abilities)


HELLO = ChatRequest([Message("user", "Hello")], max_tokens=50, temperature=0.5)


async def test_the_answer_its_reason_and_its_usage(stub: OpenAIStub, proxy: str) -> None:
    chat = cast(ChatModel, engine(OpenAIChat, proxy))
    deltas = await converse(chat, HELLO)
    assert said(deltas) == "Hello there, friend."
    assert deltas[-1] == ChatEnd("stop", Usage(11, 5, 3))
    asked = stub.requests(CHAT)[-1].body
    assert (asked["max_tokens"], asked["temperature"]) == (50, 0.5)
    await chat.close()


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [(400, "bad_request", False), (429, "rate_limited", True), (503, "overloaded", True)],
)
async def test_what_the_vendor_behind_it_refuses(
    stub: OpenAIStub, proxy: str, status: int, code: str, retryable: bool
) -> None:
    chat = cast(ChatModel, engine(OpenAIChat, proxy))
    stub.plan(CHAT, Plan(status=status, message="not this time"), times=10)
    try:
        with pytest.raises(EngineError) as caught:
            await converse(chat, HELLO)
    finally:
        stub._plans.clear()
        await chat.close()
    assert (caught.value.code, caught.value.retryable) == (code, retryable)
    assert "not this time" in str(caught.value)


async def test_a_wrong_key_is_refused_and_not_repeated(proxy: str) -> None:
    """With 400 as long as the proxy has no database to look the key up in."""
    chat = cast(ChatModel, engine(OpenAIChat, proxy, "sk-not-the-key-0123456789"))
    with pytest.raises(EngineError) as caught:
        await converse(chat, HELLO)
    assert not caught.value.retryable
    assert "0123456789" not in str(caught.value)
    await chat.close()


async def test_dimensions_that_a_model_has_not_are_refused_and_not_ignored(proxy: str) -> None:
    settings = VendorSettings(base_url=proxy, key=SecretStr(litellm_proxy.KEY))
    embedder = cast(Embedder, OpenAIEmbedder(OpenAIVendor("litellm", settings), CHAT_MODEL))
    with pytest.raises(EngineError, match="dimensions") as caught:
        await embed(embedder, ["text"], dimensions=16)
    assert (caught.value.code, caught.value.retryable) == ("bad_request", False)
    await embedder.close()
