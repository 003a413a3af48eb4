"""Engines from the settings: references, lists, names that callers may give, start and end."""

import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from realtime.adapters.base import (
    ChatEnd,
    ChatRequest,
    EngineError,
    EngineInfo,
    Message,
    SpeechChunk,
    SpeechRequest,
    SttOptions,
)
from realtime.adapters.catalogue import KINDS, OPENAI_VOICES, Catalogue, Engines, UnknownEngine
from realtime.settings import AgentSettings, Settings


class Fake:
    """A built-in engine of any kind."""

    def __init__(self, name: str, kind: Any, voices: Sequence[str] = ()) -> None:
        self.info = EngineInfo(name, kind, name, f"{name}-model")
        self.voices = voices
        self.starts = self.closes = 0
        self.failure: Exception | None = None
        self.voice_asked: str | None = None

    @asynccontextmanager
    async def stream(self, request: SpeechRequest) -> AsyncIterator[AsyncIterator[SpeechChunk]]:
        async def chunks() -> AsyncIterator[SpeechChunk]:
            self.voice_asked = request.voice
            if self.failure:
                raise self.failure
            yield SpeechChunk(np.zeros(1, np.int16))

        yield chunks()

    async def start(self) -> None:
        self.starts += 1
        if self.failure:
            raise self.failure

    async def close(self) -> None:
        self.closes += 1


class House:
    """A catalogue with fakes for what is built in, and the fakes."""

    def __init__(self, override: Any = None, **settings: Any) -> None:
        self.fakes: dict[tuple[str, str], Fake] = {}
        self.settings = Settings(**settings)

        def build(name: str, kind: str) -> Any:
            assert (name, kind) not in self.fakes, "built twice"
            self.fakes[name, kind] = Fake(name, kind, ("anna", "bert") if kind == "tts" else ())
            return self.fakes[name, kind]

        built_in: Any = {(n, k): lambda n=n, k=k: build(n, k) for n in ("embedded", "instant") for k in KINDS}
        self.catalogue = Catalogue(self.settings, override=override, built_in=built_in)

    def engines(self, agent: str = "default", **options: Any) -> Engines:
        found = self.settings.agent(agent)
        assert found is not None
        return self.catalogue.engines(found, **options)


VENDORS: dict[str, Any] = {
    "vendors": {"acme": {"base_url": "http://127.0.0.1:1/v1"}},
    "models": [
        {"id": "clever", "vendor": "acme", "kind": "chat", "model": "acme-chat-9", "temperature": 0.3},
        {"id": "ears", "vendor": "acme", "kind": "stt"},
        {"id": "mouth", "vendor": "acme", "kind": "tts", "model": "acme-voice"},
    ],
}


def test_without_settings_the_embedded_engines_work() -> None:
    house = House()
    assert house.engines().names() == {"stt": "embedded", "chat": "embedded", "tts": "embedded"}
    assert [info.kind for info in house.catalogue.infos()] == ["stt", "chat", "tts"]


def test_engines_are_built_once_and_only_when_wanted() -> None:
    house = House(agents={"other": {"chat": "instant"}})
    assert house.fakes == {}
    first, second = house.engines(), house.engines()
    assert first.chat is second.chat
    assert house.engines("other").stt is first.stt
    assert set(house.fakes) == {("embedded", "stt"), ("embedded", "chat"), ("embedded", "tts"), ("instant", "chat")}


def test_references_to_vendors_and_models() -> None:
    house = House(**VENDORS, live={"stt": "ears", "chat": ["acme/other", "clever"], "tts": "mouth"})
    assert house.engines().names() == {"stt": "acme/ears", "chat": "acme/other", "tts": "acme/acme-voice"}
    assert [info.model for info in house.catalogue.infos()] == ["ears", "other", "acme-chat-9", "acme-voice"]
    assert {info.vendor for info in house.catalogue.infos()} == {"acme"}


def test_an_agents_own_engines_come_before_the_live_ones() -> None:
    house = House(**VENDORS, live={"chat": "instant"}, agents={"a": {"chat": "clever"}})
    assert house.engines("a").names() == {"stt": "embedded", "chat": "acme/acme-chat-9", "tts": "embedded"}


@pytest.mark.parametrize(
    ("kind", "ref", "nearest", "words"),
    [
        ("chat", "embeded", "embedded", "no chat engine 'embeded'"),
        ("chat", "cleve", "clever", "no chat engine"),
        ("chat", "ears", None, "is a stt model"),
        ("stt", "nobody/x", None, "no stt engine"),
        ("tts", "acme/", "acme/MODEL", "no tts engine"),
    ],
)
def test_unknown_references_name_the_nearest(kind: str, ref: str, nearest: str | None, words: str) -> None:
    house = House(**VENDORS)
    with pytest.raises(UnknownEngine, match=words) as caught:
        house.catalogue.engines(AgentSettings(**{kind: ref}))
    assert (caught.value.ref, caught.value.kind) == (ref, kind)
    assert caught.value.nearest == nearest
    assert "embedded" in caught.value.known


def test_a_model_of_an_unknown_vendor() -> None:
    house = House(models=[{"id": "x", "vendor": "nobody", "kind": "chat"}])
    with pytest.raises(UnknownEngine, match="no vendor 'nobody'"):
        house.catalogue.engines(AgentSettings(chat="x"))


def test_a_caller_may_choose_a_known_model_only() -> None:
    house = House(**VENDORS, live={"chat": "acme/usual"}, agents={"a": {"chat": "instant"}})
    known = house.catalogue.known_models()
    assert known == ["acme/usual", "instant", "clever", "usual", "instant-model", "acme-chat-9"]
    for name, expected in (("clever", "acme-chat-9"), ("acme-chat-9", "acme-chat-9"), ("usual", "usual")):
        assert house.engines(model=name).chat.info.model == expected
    for name in ("acme/anything", "ears", "embedded", ""):
        with pytest.raises(UnknownEngine):
            house.engines(model=name)


def test_the_override_means_every_engine() -> None:
    house = House(override="instant", **VENDORS, live={"chat": "clever"}, agents={"a": {"tts": "mouth"}})
    assert house.engines("a", model="whatever").names() == {"stt": "instant", "chat": "instant", "tts": "instant"}
    assert [info.name for info in house.catalogue.infos()] == ["instant"] * 3
    assert house.catalogue.known_models() == ["instant", "instant-model"]


# --- voices -------------------------------------------------------------------------------------


def test_known_voices() -> None:
    house = House(voices={"support": {"voice": "bert"}}, agents={"a": {"voice": "special"}})
    known = house.catalogue.known_voices()
    assert known == ["support", *OPENAI_VOICES, "anna", "bert", "special"]
    assert house.catalogue.knows_voice("support")
    assert house.catalogue.knows_voice("alloy")
    assert not house.catalogue.knows_voice("nobody")
    assert house.catalogue.knows_voice("anna")


@pytest.mark.parametrize(
    ("name", "own", "expected"),
    [
        pytest.param(None, (), "alloy", id="default, any"),
        pytest.param(None, ("anna", "bert"), "anna", id="default, its own"),
        pytest.param(None, ("anna", "alloy"), "alloy", id="default, OpenAI's"),
        pytest.param("bert", ("anna", "bert"), "bert", id="its own"),
        pytest.param("marin", (), "marin", id="any name"),
        pytest.param("alloy", ("anna", "bert"), "anna", id="OpenAI's, first"),
        pytest.param("ash", ("anna", "bert"), "bert", id="OpenAI's, second"),
        pytest.param("nobody", ("anna", "bert"), "anna", id="unknown"),
        pytest.param("support", ("anna", "bert"), "bert", id="setting"),
        pytest.param("support", ("carl",), "carl", id="setting that the engine lacks"),
        pytest.param("elsewhere", ("anna", "bert"), "anna", id="setting for another engine"),
        pytest.param("elsewhere", (), "alloy", id="setting for another engine, any"),
    ],
)
def test_a_voice_name_means_something_at_every_engine(name: str | None, own: Sequence[str], expected: str) -> None:
    voices = {"support": {"voice": "bert"}, "elsewhere": {"voice": "bert", "engine": "instant"}}
    house = House(voices=voices)
    assert house.catalogue.voice(name, Fake("x", "tts", own)) == expected


async def test_a_voice_of_one_engine_and_what_the_next_makes_of_it() -> None:
    house = House(
        live={"tts": ["instant", "embedded"]},
        voices={"support": {"voice": "bert", "engine": "instant"}},
    )
    tts = house.engines().tts
    house.fakes["instant", "tts"].failure = EngineError("down")
    assert house.catalogue.voice("support", tts) == "support"
    async with tts.stream(SpeechRequest("hi", voice="support")) as chunks:
        assert len([chunk async for chunk in chunks]) == 1
    assert house.fakes["instant", "tts"].voice_asked == "bert"
    assert house.fakes["embedded", "tts"].voice_asked == "anna"


def test_a_voice_for_a_model_however_it_is_referred_to() -> None:
    house = House(**VENDORS, live={"tts": "acme/acme-voice"}, voices={"v": {"voice": "af_bella", "engine": "mouth"}})
    first = house.engines().tts.engines[0]  # type: ignore[attr-defined]
    assert house.catalogue.voice("v", first) == "af_bella"


# --- lifetime -----------------------------------------------------------------------------------


async def test_start_and_close_every_engine_in_use_once() -> None:
    house = House(live={"chat": ["embedded", "instant"]}, agents={"a": {"tts": "instant"}})
    await house.catalogue.start()
    assert set(house.fakes) == {
        ("embedded", "stt"), ("embedded", "chat"), ("embedded", "tts"), ("instant", "chat"), ("instant", "tts"),
    }  # fmt: skip
    assert {fake.starts for fake in house.fakes.values()} == {1}
    await house.catalogue.close()
    assert {fake.closes for fake in house.fakes.values()} == {1}


async def test_an_engine_that_does_not_start_is_fatal_when_alone() -> None:
    for refs, fatal in ((["embedded", "instant"], False), (["embedded"], True)):
        house = House(live={"chat": refs})
        house.engines()
        house.fakes["embedded", "chat"].failure = EngineError("no worker", code="worker_died")
        if fatal:
            with pytest.raises(EngineError, match="no worker"):
                await house.catalogue.start()
        else:
            await house.catalogue.start()


async def test_what_a_caller_may_choose_is_built_ahead(caplog: pytest.LogCaptureFixture) -> None:
    house = House(**VENDORS)
    await house.catalogue.start()
    assert "vendor acme: the connection failed" in caplog.text
    assert house.engines(model="clever").chat.info.name == "acme/acme-chat-9"
    await house.catalogue.close()


async def test_the_engines_that_come_with_the_package_answer() -> None:
    catalogue = Catalogue(Settings(), override="instant")
    await catalogue.start()
    engines = catalogue.engines(AgentSettings())
    async with engines.stt.stream(SttOptions()) as stream:
        stream.push(np.zeros(320, np.int16))
        stream.finish()
        assert [heard.final async for heard in stream] == [True]
    async with engines.chat.stream(ChatRequest([Message("user", "hello")])) as deltas:
        assert isinstance([delta async for delta in deltas][-1], ChatEnd)
    async with engines.tts.stream(SpeechRequest("Hello.", voice="alloy")) as chunks:
        assert len((await anext(chunks)).pcm) > 0
    await catalogue.close()
    assert [info.name for info in Catalogue(Settings()).infos()] == ["embedded"] * 3


async def test_closing_goes_on_when_an_engine_cannot() -> None:
    house = House()
    engines = house.engines()

    async def fail() -> None:
        raise RuntimeError("stuck")

    house.fakes["embedded", "stt"].close = fail  # type: ignore[method-assign]
    await house.catalogue.close()
    assert house.fakes["embedded", "tts"].closes == 1
    assert engines.chat.info.name == "embedded"


def test_a_vendors_sdk_is_imported_only_for_those_who_use_it() -> None:
    program = """
import sys
from realtime.adapters.catalogue import Catalogue
from realtime.settings import Settings
vendors = {"acme": {"base_url": "http://127.0.0.1:1/v1"}}
Catalogue(Settings(vendors=vendors)).known_voices()
assert "openai" not in sys.modules
Catalogue(Settings(vendors=vendors, live={"chat": "acme/m"})).infos()
assert "openai" in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
