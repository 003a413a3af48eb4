from hypothesis import given
from hypothesis import strategies as st

from realtime.adapters.base import Word
from realtime.adapters.words import WordTimes, interpolate, spans, speakable


def shown(text: str, words: list[Word] | tuple[Word, ...]) -> list[str]:
    return [text[word.start : word.end] for word in words]


def test_words_keep_their_punctuation_and_punctuation_alone_is_no_word() -> None:
    text = "Hello, world -- it's 3.5 o'clock …"
    assert [text[start:end] for start, end in spans(text)] == ["Hello,", "world", "it's", "3.5", "o'clock"]


def test_scripts_without_spaces_are_counted_by_character() -> None:
    text = "你好 world 世界。"
    assert [text[start:end] for start, end in spans(text)] == ["你", "好", "world", "世", "界"]


def test_only_letters_and_digits_can_be_said() -> None:
    assert speakable("a")
    assert speakable("…7")
    assert not speakable(" -- \n ?!")
    assert not speakable("")


def test_interpolation_gives_longer_words_more_time_and_waits_at_commas() -> None:
    words = interpolate("a, internationally b", 1000)
    assert words[0].at_ms == 0
    assert words[2].at_ms - words[1].at_ms > words[1].at_ms - words[0].at_ms
    plain = interpolate("a internationally b", 1000)
    assert words[1].at_ms > plain[1].at_ms


@given(st.text(max_size=200), st.floats(-10, 1e6), st.floats(0, 1e5))
def test_interpolated_words_are_the_words_of_the_text_in_order(text: str, duration: float, start: float) -> None:
    words = interpolate(text, duration, start_ms=start)
    assert [(word.start, word.end) for word in words] == spans(text)
    times = [word.at_ms for word in words]
    assert times == sorted(times)
    assert all(start <= at <= start + max(duration, 0) + 1e-6 * max(duration, 1) for at in times)


def test_events_give_each_word_once_with_the_time_of_its_first_event() -> None:
    text = "It costs 1234 dollars"
    times = WordTimes(text, offset=100, start_ms=50)
    assert times.event(0, 60) == [Word(100, 102, 60)]
    assert times.event(3, 200) == [Word(103, 108, 200)]
    assert times.event(9, 300) == [Word(109, 113, 300)]
    assert times.event(10, 400) == []
    assert times.event(14, 500) == [Word(114, 121, 500)]
    assert times.finish(900) == []


def test_a_word_without_an_event_lies_between_its_neighbours() -> None:
    text = "one two three"
    times = WordTimes(text)
    assert times.event(0, 100) == [Word(0, 3, 100)]
    skipped, known = times.event(8, 300)
    assert (skipped.start, known.start) == (4, 8)
    assert 100 < skipped.at_ms < 300
    assert known.at_ms == 300


def test_words_that_never_had_an_event_come_at_the_end() -> None:
    text = "one two three"
    times = WordTimes(text)
    times.event(0, 100)
    rest = times.finish(400)
    assert shown(text, rest) == ["two", "three"]
    assert 100 < rest[0].at_ms < rest[1].at_ms < 400


@given(
    st.text(max_size=80),
    st.lists(st.tuples(st.integers(-5, 100), st.floats(-10, 1e5)), max_size=30),
    st.floats(0, 1e5),
)
def test_whatever_an_engine_reports_words_stay_in_order(text: str, events: list[tuple[int, float]], end: float) -> None:
    times = WordTimes(text)
    words = [word for position, at in events for word in times.event(position, at)] + times.finish(end)
    assert [(word.start, word.end) for word in words] == spans(text)
    assert [word.at_ms for word in words] == sorted(word.at_ms for word in words)
