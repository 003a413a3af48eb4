import numpy as np
import pytest

from realtime.adapters.base import ChatRequest, Message, SpeechRequest, Transcript
from realtime.adapters.clauses import Clauses
from realtime.adapters.instant import ANSWER, InstantChat, InstantRecogniser, InstantVoice
from realtime.testing import conformance


async def test_the_instant_engines_keep_the_contract() -> None:
    await conformance.check_speech_to_text(InstantRecogniser(), np.ones(16_000, np.int16))
    await conformance.check_chat_model(InstantChat(), tools=False)
    await conformance.check_text_to_speech(InstantVoice())


async def test_it_hears_hello_whatever_was_said() -> None:
    assert await conformance.transcribe(InstantRecogniser(), np.zeros(3200, np.int16)) == [Transcript("hello", True)]


async def test_it_answers_one_sentence_and_counts_words() -> None:
    deltas = await conformance.converse(InstantChat(), ChatRequest([Message("user", "one two three")]))
    assert conformance.said(deltas) == ANSWER
    usage = conformance.check_deltas(deltas).usage
    assert usage is not None
    assert (usage.input_tokens, usage.output_tokens) == (3, len(ANSWER.split()))


def test_its_answer_is_spoken_as_one_tone() -> None:
    clauses = Clauses()
    assert len([*clauses.push(ANSWER), *clauses.finish()]) == 1


async def test_its_voice_is_five_seconds_of_440_hz_at_minus_12_dbfs() -> None:
    chunks = await conformance.speak(InstantVoice(), SpeechRequest("what is said does not matter"))
    assert [len(chunk.pcm) for chunk in chunks] == [2400] * 50
    pcm = conformance.sound(chunks).astype(np.float64)
    spectrum = np.abs(np.fft.rfft(pcm))
    assert int(spectrum.argmax()) * 24_000 / len(pcm) == 440
    assert spectrum.max() > 100 * np.partition(spectrum, -2)[-2], "one tone, without seams"
    assert 20 * np.log10(np.abs(pcm).max() / 32767) == pytest.approx(-12, abs=0.1)


async def test_its_words_come_with_the_chunk_in_which_they_begin() -> None:
    text = "one two three four five six"
    chunks = await conformance.speak(InstantVoice(), SpeechRequest(text))
    assert len(conformance.words(chunks)) == 6
    for index, chunk in enumerate(chunks):
        for word in chunk.words:
            assert index * 100 <= word.at_ms < (index + 1) * 100
