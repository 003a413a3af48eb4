import asyncio
import os
import signal
import sys
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from media.audio import Pcm
from realtime.adapters.base import EngineError, SttOptions, Transcript
from realtime.adapters.embedded import recogniser as module
from realtime.adapters.embedded.recogniser import NoRecogniser, Recogniser, RecogniserLimits
from realtime.testing import conformance
from realtime.testing.conformance import transcribe

AUDIO = Path(__file__).parents[3] / "audio"
CLIPS = {
    "synth_flite_slt_how_are_you.wav": "hello how are you today",
    "synth_flite_rms_weather_london.wav": "what is the weather like in london tomorrow",
}
pytestmark = pytest.mark.asyncio(loop_scope="module")
needs_pocketsphinx = pytest.mark.skipif(not module.installed(), reason="pocketsphinx is not installed (extra local)")


def clip(name: str) -> Pcm:
    path = AUDIO / name
    if not path.exists():
        pytest.skip(f"{name} is not in tests/audio")
    with wave.open(str(path)) as file:
        return np.frombuffer(file.readframes(file.getnframes()), np.int16)


def silence(ms: int) -> Pcm:
    return np.zeros(16 * ms, np.int16)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def recogniser() -> AsyncIterator[Recogniser]:
    engine = Recogniser(RecogniserLimits(decoders=1, waiting=2, waiting_seconds=20))
    await engine.start()
    yield engine
    await engine.close()


async def final(engine: Recogniser | NoRecogniser, pcm: Pcm, session: str = "") -> str:
    transcripts = await transcribe(engine, pcm, session=session)
    conformance.check_transcripts(transcripts)
    return transcripts[-1].text


@needs_pocketsphinx
async def test_it_keeps_the_contract(recogniser: Recogniser) -> None:
    await conformance.check_speech_to_text(recogniser, clip("synth_flite_slt_how_are_you.wav"))


@needs_pocketsphinx
async def test_it_understands_the_synthetic_clips_padded_or_not(recogniser: Recogniser) -> None:
    for name, text in CLIPS.items():
        speech = clip(name)
        assert await final(recogniser, speech) == text
        assert await final(recogniser, np.concatenate([silence(300), speech, silence(500)])) == text
    # A quiet line, 15 dB down.
    assert await final(recogniser, (speech * 0.18).astype(np.int16)) == text


@needs_pocketsphinx
async def test_partials_come_while_it_listens(recogniser: Recogniser) -> None:
    speech = clip("synth_flite_rms_weather_london.wav")
    async with asyncio.timeout(30), recogniser.stream(SttOptions()) as stream:
        stream.push(speech)
        partial = await anext(aiter(stream))
        assert not partial.final
        assert partial.text
        stream.finish()


@needs_pocketsphinx
async def test_what_it_learnt_of_a_speaker_stays_with_the_session(recogniser: Recogniser) -> None:
    speech = clip("synth_flite_slt_how_are_you.wav")
    await final(recogniser, speech, "ada")
    learnt = recogniser.speaker("ada")
    assert learnt is not None
    assert learnt.peak == np.abs(speech.astype(int)).max()
    assert recogniser.speaker("grace") is None
    await final(recogniser, clip("synth_flite_rms_weather_london.wav"), "grace")
    assert recogniser.speaker("ada") == learnt
    other = recogniser.speaker("grace")
    assert other is not None
    assert other.cmn != learnt.cmn
    # The same sound in a new session leads to the same state, whoever spoke in between.
    await final(recogniser, speech, "barbara")
    assert recogniser.speaker("barbara") == learnt
    await final(recogniser, speech)
    assert recogniser.speaker("") is None


@needs_pocketsphinx
async def test_speakers_remembered_are_bounded(recogniser: Recogniser) -> None:
    for number in range(600):
        recogniser.learn(f"s{number}", module.Speaker("40", 1))
    assert recogniser.speaker("s0") is None
    assert recogniser.speaker("s599") is not None


@needs_pocketsphinx
async def test_who_finds_no_decoder_waits_in_order_and_loses_nothing(recogniser: Recogniser) -> None:
    names = [*CLIPS, *CLIPS][:3]
    done: list[int] = []

    async def speaker(place: int) -> None:
        assert await final(recogniser, clip(names[place])) == CLIPS[names[place]]
        done.append(place)

    await asyncio.gather(*(speaker(place) for place in range(3)))
    assert done == [0, 1, 2]


@needs_pocketsphinx
async def test_too_many_speakers_are_told_that_it_is_busy(recogniser: Recogniser) -> None:
    options = SttOptions()
    async with asyncio.timeout(30), recogniser.stream(options) as a, recogniser.stream(options) as b:
        async with recogniser.stream(options) as c, recogniser.stream(options) as d:
            for stream in (a, b, c, d):
                stream.push(silence(100))
            d.finish()
            with pytest.raises(EngineError) as busy:
                await anext(aiter(d))
            assert busy.value.code == "recogniser_busy"
        # One that waited has left: there is room again.
        assert await _finish(a) == ""
        assert await _finish(b) == ""


async def _finish(stream: module.RecogniserStream) -> str:
    stream.finish()
    return [transcript async for transcript in stream][-1].text


@needs_pocketsphinx
async def test_waiting_is_bounded_in_time() -> None:
    engine = Recogniser(RecogniserLimits(decoders=1, waiting_seconds=0.05))
    async with asyncio.timeout(30), engine.stream(SttOptions()) as speaking, engine.stream(SttOptions()) as waiting:
        speaking.push(silence(100))
        await asyncio.sleep(0)
        waiting.push(silence(100))
        waiting.finish()
        with pytest.raises(EngineError) as busy:
            await anext(aiter(waiting))
        assert busy.value.code == "recogniser_busy"
    await engine.close()


@needs_pocketsphinx
async def test_an_utterance_is_bounded() -> None:
    engine = Recogniser(RecogniserLimits(decoders=1, utterance_seconds=2.0))
    await engine.start()
    await conformance.check_recognition_bounded(engine, 3)
    await engine.close()


@needs_pocketsphinx
async def test_a_killed_worker_fails_the_utterance_and_the_next_one_works(recogniser: Recogniser) -> None:
    name, text = next(iter(CLIPS.items()))
    async with asyncio.timeout(30), recogniser.stream(SttOptions()) as stream:
        stream.push(clip(name))
        transcripts = aiter(stream)
        assert not (await anext(transcripts)).final
        [pid] = recogniser.pids
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(EngineError) as died:
            async for _ in transcripts:
                pass
        assert died.value.code == "worker_died"
        stream.push(silence(20))
        stream.finish()
    assert await final(recogniser, clip(name)) == text
    assert recogniser.pids != [pid]


@needs_pocketsphinx
async def test_it_says_what_it_is(recogniser: Recogniser) -> None:
    info = recogniser.info
    assert info.version
    assert info.licence == "BSD-2-Clause"
    assert info.quality is not None
    assert "smoke test" in info.quality


async def test_without_a_recogniser_no_transcript_is_invented() -> None:
    engine = NoRecogniser()
    await conformance.check_speech_to_text(engine, silence(1000))
    assert await transcribe(engine, silence(2340)) == [
        Transcript(
            "[2.3 seconds of speech; no recogniser is installed: "
            "pip install 'infrai-realtime[local]', or set [live] stt]",
            final=True,
            spoken=False,
        )
    ]


async def test_without_the_extra_the_notice_is_what_one_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert isinstance(module.recogniser(), NoRecogniser)


async def test_importing_the_engines_imports_no_library() -> None:
    program = (
        "import sys, realtime.adapters.embedded.recogniser, realtime.adapters.embedded.voice\n"
        "import realtime.adapters.embedded.worker_main\n"
        "print([name for name in ('pocketsphinx', 'espeakng_loader', 'av', 'fastapi') if name in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, env=environment
    )
    printed, _ = await process.communicate()
    assert printed.strip() == b"[]"
