"""Engines of the user's own: held to the contract from outside, and whatever they do stays in their process."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretStr

from realtime.adapters.base import (
    ChatEnd,
    ChatRequest,
    EngineError,
    ImagePart,
    Message,
    SpeechRequest,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from realtime.adapters.catalogue import Catalogue
from realtime.adapters.custom import wire
from realtime.adapters.custom.engines import CustomChat, CustomSpeechToText, CustomTextToSpeech
from realtime.settings import Settings, VendorSettings
from realtime.testing.conformance import Abilities, check, converse, said, sound, speak, tone, transcribe, words
from tests.media.webrtc import until

EXAMPLE = Path(__file__).parents[3] / "examples" / "own-engines"
DEADLINE_S = 30.0


def vendor(name: str, **given: Any) -> VendorSettings:
    return VendorSettings(kind=f"python:tests.realtime.adapters.bad_engines:{name}", **given)


async def ask(chat: CustomChat, text: str) -> str:
    return said(await converse(chat, ChatRequest([Message("user", text)])))


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLE))


ENGINES: list[tuple[Any, str, Abilities]] = [
    (CustomChat, "Clerk", Abilities(tools=False)),
    (CustomTextToSpeech, "Beeps", Abilities()),
    (CustomSpeechToText, "Ears", Abilities()),
]


@pytest.mark.usefixtures("importable")
async def test_the_examples_engines_keep_the_contract_across_the_process() -> None:
    async def hold(kind: Any, name: str, abilities: Abilities) -> None:
        await check(lambda: kind("mine", VendorSettings(kind=f"python:my_engines:{name}")), abilities)

    await asyncio.gather(*(hold(*engine) for engine in ENGINES))


async def test_a_chat_engine_that_misbehaves_costs_its_own_answer_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    chat = CustomChat("mine", vendor("Chat", timeout_seconds=5))
    try:
        await chat.start()
        assert chat.info.version == "1.2"
        failures = {}
        for text in ("raise", "raise late", "refuse", "string", "endless"):
            with pytest.raises(EngineError) as failed:
                await ask(chat, text)
            failures[text] = failed.value
        assert str(failures["raise"]).startswith("mine: it raised ValueError at bad_engines.py:")
        assert "secret" not in str(failures["raise"])  # callers are told; the log has it
        assert str(failures["raise late"]).startswith("mine: it raised KeyError at bad_engines.py:")
        assert (failures["refuse"].code, failures["refuse"].retryable) == ("refused", False)
        assert "yields TextDelta" in str(failures["string"])
        assert "ChatEnd" in str(failures["endless"])
        pid = chat.pid
        assert await ask(chat, "hello") == "Well, hello"
        assert chat.pid == pid
        async with asyncio.timeout(DEADLINE_S), chat.stream(ChatRequest([Message("user", "flood")])) as deltas:
            for _ in range(200):
                await anext(deltas)
        assert await ask(chat, "hello") == "Well, hello"
        await until(lambda: "a secret detail" in caplog.text, "the log has what the caller was not told")
    finally:
        await chat.close()


async def test_an_engine_that_hangs_is_left_after_its_time(caplog: pytest.LogCaptureFixture) -> None:
    chat = CustomChat("mine", vendor("Chat", timeout_seconds=5))
    try:
        await chat.start()
        chat._timeout_s = 0.3  # that its process may take longer to start
        with pytest.raises(EngineError) as failed:
            await ask(chat, "hang")
        assert failed.value.code == "timeout"
        assert await ask(chat, "hello") == "Well, hello"
    finally:
        await chat.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signals")
async def test_an_engine_that_blocks_is_named_by_its_line_killed_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    chat = CustomChat("mine", vendor("Chat"))
    chat._worker.limits = type(chat._worker.limits)(stall_seconds=1.0)
    try:
        await chat.start()
        blocked = asyncio.create_task(ask(chat, "block"))
        ticks = 0
        while not blocked.done():
            await asyncio.sleep(0.01)
            ticks += 1
        assert ticks > 30  # this loop was not held up
        with pytest.raises(EngineError, match="died"):
            await blocked
        assert await ask(chat, "hello") == "Well, hello"
        assert "blocks its event loop at" in caplog.text
        assert "bad_engines.py:" in caplog.text
        with pytest.raises(EngineError) as failed:
            await ask(chat, "exit")
        assert failed.value.code == "worker_died"
        assert await ask(chat, "again") == "Well, again"
    finally:
        await chat.close()


async def test_speech_that_is_not_what_it_should_be_and_speech_that_comes_at_once() -> None:
    voice = CustomTextToSpeech("mine", vendor("Voice"))
    try:
        await voice.start()
        assert voice.voices == ["one", "two"]
        with pytest.raises(EngineError, match="int16 array at 24 kHz, not float64"):
            await speak(voice, SpeechRequest("floats"))
        chunks = await speak(voice, SpeechRequest("a lot"))
        assert max(len(chunk.pcm) for chunk in chunks) == 24_000
        assert len(sound(chunks)) == 100_000
        assert words(chunks) == []
    finally:
        await voice.close()


async def test_a_recogniser_that_raises_at_audio_is_told_apart_from_a_silent_one() -> None:
    deaf = CustomSpeechToText("mine", vendor("Deaf"))
    try:
        await deaf.start()
        with pytest.raises(EngineError, match=r"RuntimeError at bad_engines\.py"):
            await transcribe(deaf, tone(0.1))
    finally:
        await deaf.close()


CANNOT_START = {
    "tests.realtime.adapters.bad_engines:Nothing": "has no Nothing",
    "no_such_module:Engine": "there is no module no_such_module; put no_such_module.py into the folder",
    "tests.realtime.adapters.bad_engines:NoEngine": "it has no info, start; docs/engines.md",
    "tests.realtime.adapters.bad_engines:FailsToStart": "no model file",
    "tests.realtime.adapters.bad_engines:WantsAnArgument": "path",
    "tests.realtime.adapters.bad_engines:Voice": "its info.kind is 'tts', and it is used as 'chat'",
}


async def test_an_engine_that_cannot_start_is_told_by_its_setting_and_cause() -> None:
    async def start(kind: str) -> str:
        settings = Settings(vendors={"mine": VendorSettings(kind="python:" + kind)}, live={"chat": ["mine"]})
        catalogue = Catalogue(settings)
        try:
            with pytest.raises(EngineError) as failed:
                await catalogue.start()
            return str(failed.value)
        finally:
            await catalogue.close()

    told = await asyncio.gather(*(start(kind) for kind in CANNOT_START))
    for (kind, cause), text in zip(CANNOT_START.items(), told, strict=True):
        assert text.startswith(f'[vendors.mine] kind = "python:{kind}": ')
        assert cause in text


async def test_a_start_that_never_ends_is_given_up() -> None:
    chat = CustomChat("mine", vendor("NeverStarts", timeout_seconds=2))
    try:
        with pytest.raises(EngineError, match="not ready after 2 s"):
            await chat.start()
    finally:
        await chat.close()


async def test_the_constructor_gets_what_the_settings_say() -> None:
    settings = Settings(
        vendors={"mine": vendor("Chat", key=SecretStr("k"), options={"warmth": 3})},
        live={"chat": ["mine/large"]},
    )
    [chat] = Catalogue(settings).custom()
    try:
        assert (chat.info.name, chat.info.vendor, chat.info.model) == ("mine/large", "mine", "large")
        assert "[('key', 'k'), ('model', 'large'), ('warmth', 3)]" in await ask(chat, "given")
    finally:
        await chat.close()


@pytest.mark.parametrize(
    "delta",
    [
        TextDelta("a lone \ud800 surrogate \U0001f600"),
        ToolCallDelta(2, '{"a": 1}', "call_1", "look_up"),
        ToolCallDelta(0, "}"),
        ChatEnd("stop", Usage(3, 2, 1), ("temperature",)),
        ChatEnd("tool_calls"),
    ],
)
def test_a_delta_arrives_as_it_was_yielded(delta: Any) -> None:
    assert wire.unpack_delta(*wire.pack_delta(delta)) == delta


@pytest.mark.parametrize(
    "wrong", ["text", None, TextDelta(3), ToolCallDelta(-1), ChatEnd("done"), TextDelta("x" * 100_001)]
)
def test_what_is_no_delta_is_refused_where_it_was_yielded(wrong: Any) -> None:
    with pytest.raises(wire.NotTheContract):
        wire.pack_delta(wrong)


def test_a_question_that_is_too_long_is_refused() -> None:
    picture = ImagePart("data:image/png;base64," + "A" * (1 << 20))
    with pytest.raises(EngineError) as failed:
        wire.pack(ChatRequest([Message("user", "", (picture,))]))
    assert not failed.value.retryable
    assert isinstance(wire.unpack(wire.pack(SpeechRequest("hi"))), SpeechRequest)
    assert np.array_equal(wire.unpack_chunk({}, b"\x01\x00").pcm, [1])
