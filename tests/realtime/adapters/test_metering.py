"""What a call is told it used: by the engine that answered, once, also when it was cut off."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest

from media.audio import RATE_IN
from realtime.adapters.base import (
    ChatEnd,
    ChatRequest,
    EngineError,
    EngineInfo,
    Message,
    SpeechRequest,
    SttOptions,
    TextDelta,
    Usage,
)
from realtime.adapters.catalogue import Catalogue
from realtime.adapters.metering import Spent
from realtime.adapters.routing import Amount
from realtime.observe.cost import Bill
from realtime.settings import ModelSettings, Settings, VendorSettings


class Chat:
    info = EngineInfo("chat", "chat", "v", "m")

    def __init__(self, usage: Usage | None = None, *, fails: bool = False) -> None:
        self.usage = usage
        self.fails = fails

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    def stream(self, request: ChatRequest) -> Any:
        return aclosing(self._answer())

    async def _answer(self) -> AsyncIterator[Any]:
        if self.fails:
            raise EngineError("no")
        yield TextDelta("x" * 40)
        yield ChatEnd("stop", self.usage)


SETTINGS = Settings(
    vendors={"v": VendorSettings(base_url="http://127.0.0.1:1")},
    models=[
        ModelSettings(id="m", vendor="v", kind="chat", input_cost_per_token=0.001, output_cost_per_token=0.01),
        ModelSettings(id="free", vendor="v", kind="chat"),
    ],
    live={"chat": ["m", "free"]},
)


def catalogue(**engines: Chat) -> tuple[Catalogue, list[Spent]]:
    found: list[Spent] = []
    made = Catalogue(
        SETTINGS, built_in={(name, "chat"): lambda engine=engine: engine for name, engine in engines.items()}
    )
    made.watch("sess_1", found.append)
    return made, found


REQUEST = ChatRequest([Message("user", "y" * 80)], session="sess_1")


async def chat(made: Catalogue, request: ChatRequest = REQUEST, *, only_first: bool = False) -> None:
    agent = SETTINGS.agent("default")
    assert agent is not None
    engine = made._chat(made._refs(agent, "chat"))
    async with engine.stream(request) as deltas:
        async for _ in deltas:
            if only_first:
                return


async def test_tokens_are_charged_at_the_models_price() -> None:
    made, found = catalogue(m=Chat(Usage(100, 20)), free=Chat())
    await chat(made)
    assert found == [Spent("chat", "v/m", Amount(100, 20), pytest.approx(0.3))]


async def test_the_engine_that_answered_is_charged_not_the_one_that_failed() -> None:
    made, found = catalogue(m=Chat(fails=True), free=Chat(Usage(1, 1)))
    await chat(made)
    assert found == [Spent("chat", "v/free", Amount(1, 1), None)]


async def test_an_answer_that_was_cut_off_is_estimated() -> None:
    made, found = catalogue(m=Chat(Usage(100, 20)), free=Chat())
    await chat(made, only_first=True)
    assert found == [Spent("chat", "v/m", Amount(20, 10), pytest.approx(0.12), estimated=True)]


async def test_other_sessions_and_those_that_are_over_are_not_told() -> None:
    made, found = catalogue(m=Chat(Usage(100, 20)), free=Chat())
    await chat(made, ChatRequest([Message("user", "y")], session="sess_2"))
    made.watch("sess_1", found.append)()
    await chat(made)
    assert found == []


async def test_speech_is_counted_in_seconds_and_characters() -> None:
    found: list[Spent] = []
    made = Catalogue(Settings(), override="instant")
    made.watch("sess_1", found.append)
    agent = Settings().agent("default")
    assert agent is not None
    engines = made.engines(agent)
    async with engines.stt.stream(SttOptions(session="sess_1")) as stream:
        for _ in range(3):
            stream.push(np.zeros(RATE_IN // 2, np.int16))
        stream.finish()
        assert [transcript.final async for transcript in stream][-1]
    async with engines.tts.stream(SpeechRequest("twelve chars", session="sess_1")) as chunks:
        async for _ in chunks:
            break
    async with engines.tts.stream(SpeechRequest("never asked for", session="sess_1")):
        pass
    assert [(one.kind, one.amount, one.usd) for one in found] == [
        ("stt", Amount(audio_seconds=1.5), 0.0),
        ("tts", Amount(characters=12), 0.0),
    ]


def test_a_bill_sums_by_engine_and_by_turn() -> None:
    bill = Bill()
    assert bill.record() == {"usd": 0.0, "estimated": False, "engines": []}
    bill.add(Spent("chat", "v/m", Amount(10, 5), 0.25))
    bill.add(Spent("chat", "v/m", Amount(10, 5, 3), 0.25, estimated=True))
    bill.add(Spent("tts", "v/t", Amount(characters=7), 0.5))
    assert bill.take_turn() == 1.0
    assert bill.take_turn() == 0.0
    record = bill.record()
    assert (record["usd"], record["estimated"]) == (1.0, True)
    assert record["engines"][0] == {
        "kind": "chat", "engine": "v/m", "input_tokens": 20, "output_tokens": 10, "cached_tokens": 3, "usd": 0.5,
    }  # fmt: skip
    bill.add(Spent("stt", "v/s", Amount(audio_seconds=1.23456), None))
    assert bill.take_turn() is None
    record = bill.record()
    assert record["usd"] is None
    assert record["engines"][2] == {"kind": "stt", "engine": "v/s", "audio_seconds": 1.235, "usd": None}
    assert record["engines"][1] == {"kind": "tts", "engine": "v/t", "characters": 7, "usd": 0.5}
