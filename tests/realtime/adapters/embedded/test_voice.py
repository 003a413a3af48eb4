import asyncio
import os
import shutil
import signal
import time
from collections.abc import AsyncIterator

import numpy as np
import pytest

from realtime.adapters.base import EngineError, SpeechRequest, TextToSpeech
from realtime.adapters.embedded import voice as module
from realtime.adapters.embedded import voices
from realtime.adapters.embedded.tone import ToneVoice
from realtime.adapters.embedded.voice import EmbeddedVoice
from realtime.adapters.words import spans
from realtime.testing import conformance
from realtime.testing.conformance import check_chunks, sound, speak, words

INSTALLED = module.installed()
needs_espeak = pytest.mark.skipif("espeakng-loader" not in INSTALLED, reason="espeakng-loader is not installed")
OPENAI_VOICES = "alloy ash ballad coral echo fable onyx nova sage shimmer verse marin cedar"


@pytest.fixture
async def espeak() -> AsyncIterator[EmbeddedVoice]:
    engine = EmbeddedVoice("espeakng-loader")
    await engine.start()
    yield engine
    await engine.close()


@pytest.mark.parametrize("name", INSTALLED)
async def test_every_installed_voice_keeps_the_contract(name: str) -> None:
    engine = module.voice(name)
    try:
        await conformance.check_text_to_speech(engine)
        assert engine.info.quality
        assert engine.info.version or name == "tone"
        request = SpeechRequest("Counting one, two, three and four. Then comes five!")
        found = words(await speak(engine, request))
        assert [(word.start, word.end) for word in found] == spans(request.text)
        assert found[0].at_ms < 200
        assert found[-1].at_ms > 1000
    finally:
        await engine.close()


async def _seconds(engine: TextToSpeech, speed: float) -> float:
    request = SpeechRequest("How fast is this sentence spoken, my friend?", speed=speed)
    return len(sound(await speak(engine, request))) / 24_000


@pytest.mark.parametrize("name", INSTALLED)
async def test_speed_is_what_it_says(name: str) -> None:
    engine = module.voice(name)
    try:
        slowest, slow, normal, fast = [await _seconds(engine, speed) for speed in (0.25, 0.5, 1.0, 1.5)]
        assert slowest > 1.4 * slow > 1.4 * 1.4 * normal > 1.4 * 1.4 * 1.1 * fast
    finally:
        await engine.close()


@needs_espeak
async def test_openai_voices_are_all_there_and_differ(espeak: EmbeddedVoice) -> None:
    assert sorted(espeak.voices) == sorted(OPENAI_VOICES.split())
    sounds = [sound(await speak(espeak, SpeechRequest("Hello there.", voice=name))) for name in espeak.voices]
    assert len({pcm.tobytes() for pcm in sounds}) == len(sounds)
    again = sound(await speak(espeak, SpeechRequest("Hello there.", voice=espeak.voices[0].upper())))
    assert len(again)


@pytest.mark.parametrize("engine", [ToneVoice(), *([EmbeddedVoice("espeakng-loader")] if needs_espeak else [])])
async def test_an_unknown_voice_is_an_error_that_names_the_known(engine: TextToSpeech) -> None:
    with pytest.raises(EngineError, match="shimmer") as unknown:
        await speak(engine, SpeechRequest("hello", voice="darth"))
    assert unknown.value.code == "unknown_voice"
    assert not unknown.value.retryable


@needs_espeak
async def test_other_languages_are_spoken_and_nonsense_is_english(espeak: EmbeddedVoice) -> None:
    async def ms(language: str | None) -> int:
        # espeak's noise generator runs on, so that no two sounds are equal; their lengths are.
        return len(sound(await speak(espeak, SpeechRequest("1234567 und Schluss", language=language)))) // 24

    english, german = await ms(None), await ms("de")
    assert abs(german - english) > 300
    assert abs(await ms("de_DE") - german) < 50
    for nonsense in ("xx", "../../etc/passwd", "de+klatt", "en", "x" * 5000, "\0"):
        assert abs(await ms(nonsense) - english) < 50


@needs_espeak
async def test_a_text_may_be_as_long_as_it_says_and_no_longer(espeak: EmbeddedVoice) -> None:
    request = SpeechRequest(("Some words are here and there. " * 200)[: module.MAX_TEXT])
    chunks = await speak(espeak, request)
    check_chunks(request, chunks)
    assert len(words(chunks)) == len(spans(request.text))
    assert 150 < len(sound(chunks)) / 24_000 < 400
    with pytest.raises(EngineError) as long:
        await speak(espeak, SpeechRequest("x" * (module.MAX_TEXT + 1)))
    assert long.value.code == "text_too_long"


@needs_espeak
async def test_words_have_the_times_that_the_engine_gave(espeak: EmbeddedVoice) -> None:
    text = "It costs 1234.56 dollars and no more."
    found = {text[word.start : word.end]: word.at_ms for word in words(await speak(espeak, SpeechRequest(text)))}
    assert list(found) == text.split()
    # A number of seven words takes as long as seven words: interpolated times would not know.
    assert found["dollars"] - found["1234.56"] > 1500


@needs_espeak
async def test_a_long_text_holds_up_no_other_and_stops_when_it_is_left(espeak: EmbeddedVoice) -> None:
    long = SpeechRequest("This is a long text that goes on and on. " * 99)
    async with asyncio.timeout(20), espeak.stream(long) as chunks:
        assert len((await anext(chunks)).pcm)
        began = time.monotonic()
        assert len(sound(await speak(espeak, SpeechRequest("Short."))))
        assert time.monotonic() - began < 3
    assert [chunk async for chunk in chunks] == []


@needs_espeak
async def test_a_killed_worker_fails_the_speech_and_the_next_one_works(espeak: EmbeddedVoice) -> None:
    async with asyncio.timeout(30), espeak.stream(SpeechRequest("This is a long text. " * 150)) as chunks:
        assert len((await anext(chunks)).pcm)
        [pid] = espeak.pids
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineError) as died:
            async for _ in chunks:
                pass
        assert died.value.code == "worker_died"
    assert len(sound(await speak(espeak, SpeechRequest("It works again."))))
    assert espeak.pids != [pid]


@needs_espeak
async def test_many_at_once_each_get_their_own_words(espeak: EmbeddedVoice) -> None:
    texts = [f"This is caller number {number}. " * 3 for number in range(12)]
    alone = [sound(await speak(espeak, SpeechRequest(text))).tobytes() for text in texts]
    together = await asyncio.gather(*(speak(espeak, SpeechRequest(text)) for text in texts))
    # espeak's noise generator runs on: the sounds are alike, not equal.
    for one, other in zip(alone, together, strict=True):
        assert abs(len(one) / 2 - len(sound(other))) < 2400


def test_what_is_installed_is_found_without_loading_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/flite" if name == "flite" else None)
    assert module.installed() == ["flite", "tone"]
    assert module.voice().info.model == "flite"
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert isinstance(module.voice(), ToneVoice)
    with pytest.raises(EngineError, match="tone") as missing:
        module.voice("flite")
    assert missing.value.code == "not_installed"


def test_what_cannot_be_said_becomes_a_space() -> None:
    assert module.spoken("one\0two\x01\ud800 20°C é 你 \U0001f600!") == "one two   20°C é 你  !"


@pytest.mark.parametrize(
    ("language", "names"),
    [
        (None, ["en-us+f2"]),
        ("en-US", ["en-us+f2", "en-us+f2"]),
        ("de-AT", ["de-at+f2", "de+f2", "en-us+f2"]),
        ("zh", ["zh+f2", "cmn+f2", "en-us+f2"]),
        ("$(rm)", ["en-us+f2"]),
    ],
)
def test_names_that_are_tried_for_a_language(language: str | None, names: list[str]) -> None:
    assert voices.espeak_voices(voices.timbre("alloy"), language) == names


async def test_tones_say_that_they_are_no_voice() -> None:
    engine = ToneVoice()
    assert engine.info.quality is not None
    assert "no voice is installed" in engine.info.quality
    chunks = await speak(engine, SpeechRequest("one three"))
    assert [len(chunk.words) for chunk in chunks] == [1, 1]
    assert np.abs(sound(chunks).astype(int)).max() <= 6000
