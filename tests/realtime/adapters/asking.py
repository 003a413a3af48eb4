"""What is asked of engines behind an OpenAI-compatible address."""

from typing import Any

import numpy as np
from pydantic import SecretStr

from realtime.adapters.base import (
    ChatDelta,
    ChatRequest,
    Message,
    SpeechChunk,
    SpeechRequest,
    SttOptions,
    TextDelta,
    Transcript,
)
from realtime.adapters.openai import OpenAIChat, OpenAISpeechToText, OpenAITextToSpeech
from realtime.adapters.openai_vendor import OpenAIVendor
from realtime.settings import VendorSettings
from tests.vendors.openai_stub import OpenAIStub

KEY = "sk-very-secret-0123456789"
HELLO = ChatRequest([Message("user", "hello")])


def settings(stub: OpenAIStub, **values: Any) -> VendorSettings:
    return VendorSettings(**{"base_url": stub.base_url, "key": SecretStr(KEY), "timeout_seconds": 5, **values})


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
