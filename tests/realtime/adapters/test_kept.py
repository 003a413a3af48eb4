"""Speech kept for other calls: what is, what is not, within which bounds, and that it sounds the same."""

import asyncio
from contextlib import aclosing

import numpy as np
import pytest

from realtime.adapters.base import EngineError, EngineInfo, SpeechChunk, SpeechRequest, Word
from realtime.adapters.failover import FirstOfTextToSpeech
from realtime.adapters.kept import MOST_ENTRIES, KeptSpeech


class Voice:
    """Each text takes `samples` in chunks of 1000, and every request is counted."""

    voices = ()

    def __init__(self, name="voice", samples=2500, fails_after=None):
        self.info = EngineInfo(name=name, kind="tts", vendor="test", model=name, quality="real")
        self.asked = []
        self._samples = samples
        self.fails_after = fails_after

    async def start(self):
        pass

    async def close(self):
        pass

    def stream(self, request):
        return aclosing(self._chunks(request))

    async def _chunks(self, request):
        self.asked.append(request)
        pcm = np.arange(1, self._samples + 1, dtype=np.int16)
        for place, start in enumerate(range(0, self._samples, 1000)):
            if self.fails_after == place:
                raise EngineError("no", code="unavailable", retryable=True)
            yield SpeechChunk(pcm[start : start + 1000], (Word(place, place + 1, place * 41.0),))


async def said(engine, text="Hello there.", most=None, **wish):
    chunks = []
    async with engine.stream(SpeechRequest(text, **{"voice": "a", "shared": True} | wish)) as stream:
        async for chunk in stream:
            chunks.append(chunk)
            if len(chunks) == most:
                break
    return chunks


def over(*voices, most_bytes=1 << 20):
    kept = KeptSpeech(most_bytes)
    return FirstOfTextToSpeech(voices, kept=kept), kept


async def test_the_second_call_is_told_the_same_and_the_voice_is_not_asked():
    voice = Voice()
    engine, _ = over(voice)
    first, second = await said(engine, session="1"), await said(engine, session="2")
    assert len(voice.asked) == 1
    assert [chunk.words for chunk in first] == [chunk.words for chunk in second]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.pcm, other.pcm)
        assert one.source == other.source


async def test_what_is_kept_is_whole_frames_numbered_without_a_gap_and_ends_in_silence():
    chunks = await said(over(Voice())[0])
    assert {len(chunk.pcm) % 480 for chunk in chunks} == {0}
    sources = [chunk.source for chunk in chunks]
    assert len({source[0] for source in sources}) == 1
    counts = [len(chunk.pcm) // 480 for chunk in chunks]
    assert [source[1] for source in sources] == [sum(counts[:place]) for place in range(len(counts))]
    sound = np.concatenate([chunk.pcm for chunk in chunks])
    np.testing.assert_array_equal(sound[:2400], np.arange(1, 2401))
    assert not sound[2500:].any()
    assert len(sound) == 2880
    assert [word.start for chunk in chunks for word in chunk.words] == [0, 1, 2]


@pytest.mark.parametrize("other", [{"voice": "b"}, {"text": "Hello"}, {"speed": 1.5}, {"language": "fr"}])
async def test_another_text_voice_speed_or_language_is_another_sound(other):
    voice = Voice()
    engine, _ = over(voice)
    await said(engine)
    await said(engine, **other)
    assert len(voice.asked) == 2


async def test_engines_do_not_share():
    one, other = Voice("one"), Voice("other")
    kept = KeptSpeech(1 << 20)
    for voice in (one, other):
        await said(FirstOfTextToSpeech([voice], kept=kept))
    assert (len(one.asked), len(other.asked), len(kept)) == (1, 1, 2)


async def test_an_ordinary_answer_is_made_afresh_as_the_voice_gives_it():
    voice = Voice()
    engine, kept = over(voice)
    for _ in range(2):
        chunks = await said(engine, shared=False)
        assert [len(chunk.pcm) for chunk in chunks] == [1000, 1000, 500]
        assert {chunk.source for chunk in chunks} == {None}
    assert (len(voice.asked), len(kept)) == (2, 0)


async def test_nothing_is_kept_that_was_left_that_failed_or_that_had_no_sound():
    voice = Voice()
    engine, kept = over(voice)
    await said(engine, most=2)
    voice.fails_after = 2
    with pytest.raises(EngineError):
        await said(engine)
    silent, kept_silent = over(Voice(samples=0))
    assert await said(silent) == []
    assert (len(kept), len(kept_silent), kept.bytes) == (0, 0, 0)


async def test_what_another_engine_said_is_not_kept_and_the_first_one_is_asked_again():
    first, second = Voice("first", fails_after=0), Voice("second")
    engine, kept = over(first, second)
    await said(engine)
    assert len(kept) == 0
    first.fails_after = None
    await said(engine)
    await said(engine)
    assert (len(first.asked), len(second.asked), len(kept)) == (2, 1, 1)


async def test_kept_speech_needs_no_engine_that_works():
    voice = Voice()
    engine, _ = over(voice)
    await said(engine)
    voice.fails_after = 0
    assert await said(engine)


async def test_bytes_are_bounded_and_what_was_not_said_for_longest_goes_first():
    voice = Voice()
    size = 2880 * 2 * 1.5
    engine, kept = over(voice, most_bytes=round(size * 8.5))
    for text in "abcdefgh":
        await said(engine, text)
    assert len(kept) == 8
    await said(engine, "a")
    await said(engine, "i")
    assert kept.bytes == 8 * size
    before = len(voice.asked)
    await said(engine, "a")
    assert len(voice.asked) == before
    await said(engine, "b")
    assert len(voice.asked) == before + 1


async def test_entries_are_bounded():
    engine, kept = over(Voice(samples=1), most_bytes=1 << 30)
    for number in range(MOST_ENTRIES + 1):
        await said(engine, str(number))
    assert len(kept) == MOST_ENTRIES


@pytest.mark.parametrize("most_bytes", [0, 7 * 8640])
async def test_what_would_fill_the_store_is_not_kept(most_bytes):
    voice = Voice()
    engine, kept = over(voice, most_bytes=most_bytes)
    assert await said(engine)
    assert await said(engine)
    assert (len(voice.asked), len(kept), kept.bytes) == (2, 0, 0)


async def test_calls_at_the_same_time_share_the_packets_of_the_one_that_was_first():
    engine, kept = over(Voice())
    await asyncio.gather(*(said(engine) for _ in range(3)))
    assert len(kept) == 1
    first, second = await said(engine), await said(engine)
    assert first[0].source == second[0].source
