"""Recognisers and voices behind an OpenAI-compatible address, against a stub vendor on a real socket."""

import numpy as np
import pytest

from media.audio import RATE_IN
from realtime.adapters.base import (
    EngineError,
    SpeechRequest,
    SttOptions,
    Transcript,
)
from realtime.adapters.openai import MAX_UTTERANCE_S, OpenAISpeechToText, OpenAITextToSpeech
from realtime.adapters.openai_vendor import OpenAIVendor
from tests.realtime.adapters.asking import hear, settings, speak
from tests.vendors.openai_stub import SPEECH, TRANSCRIPTIONS, OpenAIStub, Plan


async def test_an_utterance_is_sent_as_one_wav_file(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    pcm = np.arange(-8000, 8000, dtype=np.int16)
    found = await hear(vendor, pcm, SttOptions(language="de-CH", prompt="Rösti"))
    assert found == [Transcript("what was said", final=True)]
    record = stub.requests(TRANSCRIPTIONS)[0]
    assert record.wav is not None
    assert record.samples is not None
    assert record.wav[:3] == (1, 2, RATE_IN)
    assert np.array_equal(record.samples, pcm)
    assert record.body == {"model": "m", "response_format": "json", "language": "de", "prompt": "Rösti"}


@pytest.mark.parametrize("samples", [0, 1500])
async def test_too_little_audio_is_not_sent(stub: OpenAIStub, vendor: OpenAIVendor, samples: int) -> None:
    assert await hear(vendor, np.zeros(samples, np.int16)) == [Transcript("", final=True)]
    assert stub.journal == []


async def test_an_utterance_is_bounded(vendor: OpenAIVendor) -> None:
    async with OpenAISpeechToText(vendor, "m").stream(SttOptions()) as stream:
        second = np.zeros(RATE_IN, np.int16)
        for _ in range(int(MAX_UTTERANCE_S)):
            stream.push(second)
        with pytest.raises(EngineError) as caught:
            stream.push(second)
        assert caught.value.code == "audio_overflow"


async def test_leaving_an_utterance_closes_the_connection(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    stub.plan(TRANSCRIPTIONS, Plan(hang=True))
    async with OpenAISpeechToText(vendor, "m").stream(SttOptions()) as stream:
        stream.push(np.zeros(RATE_IN, np.int16))
        stream.finish()
        await stub.until(lambda: len(stub.requests(TRANSCRIPTIONS)) == 1)
    await stub.until(lambda: stub.requests(TRANSCRIPTIONS)[0].closed_early)


async def test_leaving_before_the_end_sends_nothing(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    async with OpenAISpeechToText(vendor, "m").stream(SttOptions()) as stream:
        stream.push(np.zeros(RATE_IN, np.int16))
    assert stub.journal == []


async def test_speech_arrives_whole_however_it_is_torn(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    chunks = await speak(vendor, SpeechRequest("Hello there, friend.", voice="nova", speed=1.25))
    assert len(chunks) > 2
    assert np.concatenate([chunk.pcm for chunk in chunks]).astype("<i2").tobytes() == stub.tone()
    assert stub.requests(SPEECH)[0].body == {
        "model": "m",
        "input": "Hello there, friend.",
        "voice": "nova",
        "response_format": "pcm",
        "speed": 1.25,
    }


async def test_every_word_gets_a_time_within_the_audio(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    stub.speech_ms = 3000
    sentence = "Hello there, friend of mine. How do you do?"
    chunks = await speak(vendor, SpeechRequest(sentence))
    words = [word for chunk in chunks for word in chunk.words]
    assert [sentence[word.start : word.end] for word in words] == sentence.split()
    assert words[0].at_ms == 0
    assert [word.at_ms for word in words] == sorted(word.at_ms for word in words)
    assert words[-1].at_ms < 3000


@pytest.mark.parametrize("rate", [16_000, 22_050, 24_000, 48_000])
async def test_wav_of_any_rate_becomes_24_khz(stub: OpenAIStub, rate: int) -> None:
    vendor = OpenAIVendor("acme", settings(stub, speech_format="wav"))
    stub.speech_rate = rate
    pcm = np.concatenate([chunk.pcm for chunk in await speak(vendor, SpeechRequest("Hello there."))]).astype(float)
    assert abs(len(pcm) - 24 * stub.speech_ms) < 24 * 5
    spectrum = np.abs(np.fft.rfft(pcm))
    assert abs(np.argmax(spectrum) * 24_000 / len(pcm) - 440) < 3
    await vendor.close(None)


async def test_a_wav_file_where_raw_audio_was_asked_for(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    from realtime.adapters.wav import wav

    pcm = np.arange(2400, dtype=np.int16)
    stub.plan(SPEECH, Plan(body=wav(pcm, 24_000), content_type="audio/pcm"))
    chunks = await speak(vendor, SpeechRequest("Hello."))
    assert np.array_equal(np.concatenate([chunk.pcm for chunk in chunks]), pcm)


async def test_leaving_speech_closes_the_connection(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    stub.plan(SPEECH, Plan(hang=True, after=2))
    async with OpenAITextToSpeech(vendor, "m").stream(SpeechRequest("Hello there.")) as chunks:
        assert len((await anext(chunks)).pcm) in (2400, 4801)  # one piece, or both when they arrived together
    await stub.until(lambda: stub.requests(SPEECH)[0].closed_early)


async def test_nothing_to_say_is_not_sent(stub: OpenAIStub, vendor: OpenAIVendor) -> None:
    assert await speak(vendor, SpeechRequest("  …")) == []
    assert stub.journal == []
