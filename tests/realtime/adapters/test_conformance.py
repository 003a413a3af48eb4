"""Every adapter and every built-in engine under the same checks; those that need more have tests of their own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from pydantic import SecretStr

from realtime.adapters.anthropic import AnthropicChat
from realtime.adapters.embedded.drawing import Placeholder, png
from realtime.adapters.embedded.eyes import Eyes
from realtime.adapters.embedded.hashing import HashingEmbedder
from realtime.adapters.embedded.responder import Responder
from realtime.adapters.gemini import GeminiChat
from realtime.adapters.instant import InstantChat, InstantRecogniser, InstantVoice
from realtime.adapters.openai import OpenAIChat, OpenAISpeechToText, OpenAITextToSpeech
from realtime.adapters.openai_media import OpenAIEmbedder, OpenAIImages
from realtime.adapters.openai_vendor import OpenAIVendor
from realtime.settings import VendorSettings
from realtime.testing.conformance import Abilities, Engine, check
from tests.vendors.openai_stub import OpenAIStub
from tests.vendors.wire import KEY, Wire, anthropic_answer, gemini_answer, serving

BUILT_IN = {
    "embedded chat": (Responder, Abilities()),
    "embedded eyes": (Eyes, Abilities(tools=False)),
    "embedded embed": (HashingEmbedder, Abilities(dimensions=64)),
    "embedded image": (Placeholder, Abilities(size=(64, 48))),
    "instant chat": (InstantChat, Abilities(tools=False)),
    "instant stt": (InstantRecogniser, Abilities()),
    "instant tts": (InstantVoice, Abilities()),
}
OPENAI = {
    OpenAIChat: Abilities(),
    OpenAISpeechToText: Abilities(),
    OpenAITextToSpeech: Abilities(),
    OpenAIEmbedder: Abilities(dimensions=16),
    OpenAIImages: Abilities(size=(512, 512)),
}


@pytest.mark.parametrize("name", BUILT_IN)
async def test_a_built_in_engine(name: str) -> None:
    make, abilities = BUILT_IN[name]
    await check(make, abilities)


@pytest.fixture
def stub() -> Iterator[OpenAIStub]:
    with OpenAIStub().serve() as stub:
        stub.answers_with_tools_when_asked('{"location": "London"}')
        stub.speech_ms = 1500
        stub.picture = png(np.zeros((4, 4, 3), np.uint8))
        yield stub


@pytest.mark.parametrize("kind", OPENAI, ids=lambda kind: kind.__name__)
async def test_an_engine_behind_an_openai_compatible_address(stub: OpenAIStub, kind: type) -> None:
    settings = VendorSettings(base_url=stub.base_url, key=SecretStr(KEY), timeout_seconds=10)

    def make() -> Engine:
        return kind(OpenAIVendor("vendor", settings), "model")

    await check(make, OPENAI[kind])


@pytest.mark.parametrize(("kind", "answer"), [(AnthropicChat, anthropic_answer), (GeminiChat, gemini_answer)])
async def test_a_chat_model_by_its_vendors_own_sdk(kind: type, answer: object) -> None:
    async with serving(Wire(answer=answer)) as wire:
        settings = VendorSettings(base_url=wire.url, key=SecretStr(KEY), timeout_seconds=10)
        await check(lambda: kind("vendor", settings, "model"))
