"""Several engines as one: order, deadlines, breakers, and audio that the next recogniser hears again."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest

from media.audio import RATE_IN, Pcm
from realtime.adapters.base import (
    ChatDelta,
    ChatEnd,
    ChatRequest,
    EngineError,
    EngineInfo,
    Message,
    SpeechChunk,
    SpeechRequest,
    SttOptions,
    TextDelta,
    Transcript,
    Word,
)
from realtime.adapters.breaker import Breaker, BreakerState
from realtime.adapters.failover import (
    MAX_UTTERANCE_S,
    AllFailed,
    Breakers,
    FirstOfChat,
    FirstOfSpeechToText,
    FirstOfTextToSpeech,
)

REQUEST = ChatRequest([Message("user", "hello")])
SECOND = np.arange(RATE_IN, dtype=np.int16)
HANG = "hang"
Script = Sequence[object]
"""What an engine does, in order: an output, an error to raise, or HANG."""


def error(code: str = "bad_response", *, retryable: bool = True) -> EngineError:
    return EngineError(code, code=code, retryable=retryable)


async def play(script: Script) -> AsyncIterator[object]:
    for step in script:
        if isinstance(step, Exception):
            raise step
        if step == HANG:
            await asyncio.Event().wait()
        yield step


class Scripted:
    """A chat model or a voice that follows a script at each request, the last one for ever."""

    def __init__(self, name: str, *scripts: Script, voices: Sequence[str] = ()) -> None:
        self.info = EngineInfo(name, "chat", name, "m")
        self.voices = voices
        self.scripts = list(scripts)
        self.requests: list[object] = []
        self.open = 0
        self.started = self.closed = False

    @asynccontextmanager
    async def stream(self, request: object) -> AsyncIterator[AsyncIterator[object]]:
        self.requests.append(request)
        self.open += 1
        try:
            yield play(self.scripts.pop(0) if len(self.scripts) > 1 else self.scripts[0])
        finally:
            self.open -= 1

    async def start(self) -> None:
        self.started = True
        if isinstance(self.scripts[0][0], EngineError):
            raise self.scripts[0][0]

    async def close(self) -> None:
        self.closed = True


GOOD = [TextDelta("a"), TextDelta("b"), ChatEnd("stop")]


async def ask(engine: FirstOfChat) -> list[ChatDelta]:
    async with engine.stream(REQUEST) as deltas:
        return [delta async for delta in deltas]


async def test_the_first_that_answers() -> None:
    first, second, third = Scripted("one", [error()]), Scripted("two", GOOD), Scripted("three", GOOD)
    engine = FirstOfChat([first, second, third])
    assert await ask(engine) == GOOD
    assert (len(first.requests), len(second.requests), len(third.requests)) == (1, 1, 0)
    assert first.open == second.open == 0
    assert engine.info is first.info


async def test_never_another_one_after_the_first_output() -> None:
    second = Scripted("two", GOOD)
    engine = FirstOfChat([Scripted("one", [TextDelta("a"), error("rate_limited")]), second])
    async with engine.stream(REQUEST) as deltas:
        assert await anext(deltas) == TextDelta("a")
        with pytest.raises(EngineError) as caught:
            await anext(deltas)
    assert caught.value.code == "rate_limited"
    assert second.requests == []


async def test_all_failed() -> None:
    engines = [Scripted("one", [error("timeout")]), Scripted("two", [error("auth_failed", retryable=False)])]
    with pytest.raises(AllFailed) as caught:
        await ask(FirstOfChat(engines))
    assert caught.value.code == "auth_failed"
    assert not caught.value.retryable
    assert [(attempt.engine, attempt.code) for attempt in caught.value.attempts] == [
        ("one", "timeout"),
        ("two", "auth_failed"),
    ]
    assert "one: timeout, two: auth_failed" in str(caught.value)


async def test_a_single_engines_error_is_its_own() -> None:
    failure = error("rate_limited")
    with pytest.raises(EngineError) as caught:
        await ask(FirstOfChat([Scripted("one", [failure])]))
    assert caught.value is failure


async def test_no_output_until_the_deadline() -> None:
    first = Scripted("one", [HANG])
    assert await ask(FirstOfChat([first, Scripted("two", GOOD)], deadline_s=0.05)) == GOOD
    assert first.open == 0
    with pytest.raises(EngineError) as caught:
        await ask(FirstOfChat([first], deadline_s=0.05))
    assert (caught.value.code, caught.value.engine) == ("timeout", "one")


async def test_the_deadline_is_for_the_first_output_only() -> None:
    engine = FirstOfChat([Scripted("one", [TextDelta("a"), HANG])], deadline_s=0.05)
    async with engine.stream(REQUEST) as deltas:
        assert await anext(deltas) == TextDelta("a")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await anext(deltas)


async def test_leaving_closes_the_engines_stream() -> None:
    one = Scripted("one", GOOD)
    async with FirstOfChat([one]).stream(REQUEST) as deltas:
        await anext(deltas)
        assert one.open == 1
    assert one.open == 0


# --- breakers -----------------------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def few() -> Breaker:
    return Breaker(threshold=2, open_s=10)


async def test_an_engine_that_fails_in_a_row_is_passed_over_and_tried_again_later() -> None:
    clock = Clock()
    first, second = Scripted("one", [error()], [error()], GOOD), Scripted("two", GOOD)
    engine = FirstOfChat([first, second], Breakers(clock, few))
    for _ in range(4):
        assert await ask(engine) == GOOD
    assert len(first.requests) == 2
    clock.now += 10
    await ask(engine)
    await ask(engine)
    assert (len(first.requests), len(second.requests)) == (4, 4)


async def test_when_all_are_passed_over_all_are_tried() -> None:
    first, second = Scripted("one", [error()]), Scripted("two", [error()], [error()], GOOD)
    engine = FirstOfChat([first, second], Breakers(Clock(), few))
    for _ in range(2):
        with pytest.raises(AllFailed):
            await ask(engine)
    assert await ask(engine) == GOOD
    assert len(first.requests) == 3


async def test_a_breaker_is_the_engines_wherever_it_is_listed() -> None:
    breakers = Breakers(Clock(), few)
    broken, good = Scripted("one", [error()]), Scripted("two", GOOD)
    await ask(FirstOfChat([broken, good], breakers))
    await ask(FirstOfChat([broken, good], breakers))
    await ask(FirstOfChat([broken, good], breakers))
    assert len(broken.requests) == 2


async def test_neither_bad_requests_nor_callers_that_leave_count() -> None:
    breakers = Breakers(Clock(), few)
    refusing, hanging = Scripted("one", [error("bad_request", retryable=False)]), Scripted("two", [HANG])
    engine = FirstOfChat([refusing, hanging], breakers)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await ask(engine)
    assert (len(refusing.requests), len(hanging.requests)) == (3, 3)
    assert hanging.open == 0
    assert breakers.of(hanging).state is BreakerState.CLOSED


def test_a_half_open_breaker_lets_one_attempt_through() -> None:
    breaker = few()
    breaker.failed(0)
    assert breaker.allows(1)
    breaker.failed(1)
    assert breaker.state is BreakerState.OPEN
    assert not breaker.allows(10.9)
    assert breaker.allows(11)
    assert not breaker.allows(11)
    breaker.undecided()
    assert breaker.allows(11)
    breaker.failed(12)
    assert not breaker.allows(21)
    assert breaker.allows(22)
    breaker.succeeded()
    assert breaker.state is BreakerState.CLOSED
    breaker.failed(23)
    assert breaker.allows(23)


# --- starting and closing -----------------------------------------------------------------------


async def test_one_engine_that_starts_is_enough() -> None:
    broken, good = Scripted("one", [error()]), Scripted("two", GOOD)
    engine = FirstOfChat([broken, good])
    await engine.start()
    assert good.started
    with pytest.raises(EngineError):
        await FirstOfChat([broken]).start()
    await engine.close()
    assert broken.closed
    assert good.closed


def test_no_engines() -> None:
    with pytest.raises(ValueError, match="no engine"):
        FirstOfChat([])


# --- text to speech -----------------------------------------------------------------------------

SILENT = SpeechChunk(np.zeros(0, np.int16), (Word(0, 2, 0.0),))
SOUND = SpeechChunk(np.ones(480, np.int16))


async def test_words_without_sound_are_not_output() -> None:
    second = Scripted("two", [SILENT, SOUND])
    engine = FirstOfTextToSpeech([Scripted("one", [SILENT, error()]), second])
    async with engine.stream(SpeechRequest("hi")) as chunks:
        found = [chunk async for chunk in chunks]
    assert len(found) == 2
    assert found[0] is SILENT
    assert found[1] is SOUND


async def test_a_voice_has_its_own_name_at_each_engine() -> None:
    first, second = Scripted("one", [error()], voices=["x"]), Scripted("two", [SOUND], voices=["y"])
    engine = FirstOfTextToSpeech([first, second], voice_of=lambda voice, engine: f"{voice}-{engine.voices[0]}")
    async with engine.stream(SpeechRequest("hi", voice="nova")) as chunks:
        assert len([chunk async for chunk in chunks]) == 1
    assert first.requests == [SpeechRequest("hi", voice="nova-x")]
    assert second.requests == [SpeechRequest("hi", voice="nova-y")]
    assert list(engine.voices) == ["x"]


async def test_silence_is_an_answer() -> None:
    second = Scripted("two", [SOUND])
    async with FirstOfTextToSpeech([Scripted("one", []), second]).stream(SpeechRequest("…")) as chunks:
        assert [chunk async for chunk in chunks] == []
    assert second.requests == []


# --- speech to text -----------------------------------------------------------------------------


class Recogniser:
    """Follows a script; the strings `heard` and `finished` wait for audio and for the end of it."""

    def __init__(self, name: str, script: Script, *, refuse_after: int | None = None) -> None:
        self.info = EngineInfo(name, "stt", name, "m")
        self.script = script
        self.refuse_after = refuse_after
        self.heard: list[Pcm] = []
        self.options: SttOptions | None = None
        self.open = 0
        self._audio = asyncio.Event()
        self._over = asyncio.Event()

    @asynccontextmanager
    async def stream(self, options: SttOptions) -> AsyncIterator["Recogniser"]:
        self.options = options
        self.heard = []
        self._audio.clear()
        self._over.clear()
        self.open += 1
        try:
            yield self
        finally:
            self.open -= 1

    def push(self, pcm: Pcm) -> None:
        if self.refuse_after is not None and len(self.heard) >= self.refuse_after:
            raise error("worker_died")
        self.heard.append(pcm)
        self._audio.set()

    def finish(self) -> None:
        self._over.set()

    async def __aiter__(self) -> AsyncIterator[Transcript]:
        for step in self.script:
            if step == "heard":
                await self._audio.wait()
            elif step == "finished":
                await self._over.wait()
            elif step == HANG:
                await asyncio.Event().wait()
            elif isinstance(step, Exception):
                raise step
            else:
                assert isinstance(step, Transcript)
                yield step

    async def start(self) -> None: ...

    async def close(self) -> None: ...


FINAL = Transcript("hello there", True)
HEARS: Script = ["heard", Transcript("hello", False), "finished", FINAL]


async def hear(engine: FirstOfSpeechToText, seconds: int = 2) -> list[Transcript]:
    async with engine.stream(SttOptions(language="en")) as stream:
        for _ in range(seconds):
            stream.push(SECOND)
            await asyncio.sleep(0)
        stream.finish()
        return [transcript async for transcript in stream]


async def test_partials_come_while_the_audio_does() -> None:
    recogniser = Recogniser("one", HEARS)
    async with FirstOfSpeechToText([recogniser]).stream(SttOptions(language="en")) as stream:
        transcripts = aiter(stream)
        stream.push(SECOND)
        assert await anext(transcripts) == Transcript("hello", False)
        stream.push(SECOND)
        stream.finish()
        assert [transcript async for transcript in transcripts] == [FINAL]
    assert len(recogniser.heard) == 2
    assert recogniser.options == SttOptions(language="en")
    assert recogniser.open == 0


async def test_a_recogniser_hears_before_anyone_asks_for_words() -> None:
    recogniser = Recogniser("one", ["heard", "finished", FINAL])
    async with FirstOfSpeechToText([recogniser]).stream(SttOptions()) as stream:
        stream.push(SECOND)
        await recogniser._audio.wait()
        assert recogniser.open == 1
    assert recogniser.open == 0


@pytest.mark.parametrize(
    "script",
    [
        pytest.param([error()], id="at once"),
        pytest.param(["heard", error()], id="while hearing"),
        pytest.param(["finished", error()], id="at the end"),
        pytest.param(["finished"], id="without a word"),
        pytest.param(["finished", HANG], id="never"),
    ],
)
async def test_the_next_recogniser_hears_everything_again(script: Script) -> None:
    first, second = Recogniser("one", script), Recogniser("two", HEARS)
    engine = FirstOfSpeechToText([first, second], deadline_s=0.1)
    assert await hear(engine) == [Transcript("hello", False), FINAL]
    assert np.array_equal(np.concatenate(second.heard), np.concatenate([SECOND, SECOND]))
    assert first.open == second.open == 0


@pytest.mark.parametrize("refuse_after", [0, 1])
async def test_a_recogniser_that_refuses_audio_is_left(refuse_after: int) -> None:
    first, second = Recogniser("one", ["finished", FINAL], refuse_after=refuse_after), Recogniser("two", HEARS)
    assert await hear(FirstOfSpeechToText([first, second])) == [Transcript("hello", False), FINAL]
    assert len(second.heard) == 2


async def test_no_other_recogniser_after_the_first_words() -> None:
    second = Recogniser("two", HEARS)
    engine = FirstOfSpeechToText([Recogniser("one", ["heard", Transcript("hello", False), error()]), second])
    with pytest.raises(EngineError):
        await hear(engine)
    assert second.options is None


async def test_a_final_transcript_that_never_comes() -> None:
    script: Script = ["heard", Transcript("hello", False), HANG]
    with pytest.raises(EngineError) as caught:
        await hear(FirstOfSpeechToText([Recogniser("one", script)], deadline_s=0.1))
    assert caught.value.code == "timeout"


async def test_there_is_no_deadline_while_the_caller_speaks() -> None:
    engine = FirstOfSpeechToText([Recogniser("one", ["finished", FINAL])], deadline_s=0.05)
    async with engine.stream(SttOptions()) as stream:
        transcripts = aiter(stream)
        waiting = asyncio.ensure_future(anext(transcripts))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        stream.finish()
        assert await waiting == FINAL


async def test_all_recognisers_failed() -> None:
    with pytest.raises(AllFailed) as caught:
        await hear(FirstOfSpeechToText([Recogniser("one", [error()]), Recogniser("two", [error("timeout")])]))
    assert caught.value.code == "timeout"


async def test_the_audio_kept_is_bounded() -> None:
    async with FirstOfSpeechToText([Recogniser("one", [HANG])]).stream(SttOptions()) as stream:
        for _ in range(int(MAX_UTTERANCE_S)):
            stream.push(SECOND)
        with pytest.raises(EngineError) as caught:
            stream.push(SECOND)
    assert caught.value.code == "audio_overflow"
