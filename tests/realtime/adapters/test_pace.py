"""Word times that are told while the audio arrives."""

from hypothesis import given
from hypothesis import strategies as st

from realtime.adapters.base import Word
from realtime.adapters.pace import MAX_VOICES, Paces, WordEstimate

TEXT = "one two three four five six seven eight nine ten"


def tell(text: str, audio_ms: float, steps: list[tuple[float, float]], pace: float = 66.0) -> list[Word]:
    times = WordEstimate(text, pace)
    words: list[Word] = []
    for arrived, elapsed in steps:
        words += times.arrived(arrived, elapsed)
    return words + list(times.finish(audio_ms))


def test_a_burst_of_audio_is_placed_by_its_real_length() -> None:
    # Everything arrives at once: little is told by the pace, the rest by the length.
    words = tell(TEXT, 10_000, [(10_000, 0)])
    assert [TEXT[word.start : word.end] for word in words] == TEXT.split()
    assert 8_500 < words[-1].at_ms < 10_000


def test_slow_audio_tells_each_word_when_it_can_be_heard() -> None:
    times = WordEstimate(TEXT, 66.0)
    assert times.arrived(0, 0) == ()
    assert [word.start for word in times.arrived(100, 0)] == [0]
    assert all(word.at_ms < 1000 for word in times.arrived(1000, 1000))
    assert times.arrived(1000, 5000) == ()


def test_audio_shorter_than_expected_still_tells_every_word() -> None:
    words = tell(TEXT, 500, [(250, 0), (500, 200)])
    assert len(words) == 10
    assert words[-1].at_ms <= 500


@given(
    st.text(st.sampled_from("ab ,.!你。\n"), max_size=80),
    st.lists(st.tuples(st.floats(0, 900), st.floats(0, 900)), max_size=20),
    st.floats(1, 300),
)
def test_times_grow_and_stay_within_the_audio(text: str, steps: list[tuple[float, float]], pace: float) -> None:
    audio = elapsed = 0.0
    grown = [(audio := audio + more, elapsed := elapsed + later) for more, later in steps]
    words = tell(text, audio, grown, pace)
    assert [word.at_ms for word in words] == sorted(word.at_ms for word in words)
    assert all(0 <= word.at_ms <= max(audio, 0) for word in words)
    assert [(word.start, word.end) for word in words] == [(w.start, w.end) for w in tell(text, 1.0, [])]


def test_a_voices_pace_is_learned_and_follows_the_speed() -> None:
    paces = Paces()
    before = paces.ms_per_character("nova", 1.0)
    for _ in range(10):
        paces.learn("nova", 2.0, "x" * 100, 5_000)
    assert abs(paces.ms_per_character("nova", 1.0) - 100) < 5
    assert abs(paces.ms_per_character("nova", 2.0) - 50) < 3
    assert paces.ms_per_character("echo", 1.0) == before
    paces.learn("echo", 1.0, "Hi.", 9_000)
    assert paces.ms_per_character("echo", 1.0) == before


def test_the_number_of_voices_is_bounded() -> None:
    paces = Paces()
    paces.learn("first", 1.0, "x" * 100, 20_000)
    for voice in range(MAX_VOICES):
        paces.learn(str(voice), 1.0, "x" * 100, 20_000)
    assert paces.ms_per_character("first", 1.0) == Paces().ms_per_character("first", 1.0)
