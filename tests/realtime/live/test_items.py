"""Items: what is kept of speech after a cut, order and predecessors, what a chat model reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.adapters.base import Word
from realtime.live.items import History, HistoryError, Item, ItemStatus, Part


def spoken(text: str, word_ms: float = 200.0) -> Part:
    part = Part("output_audio", text)
    words, position = [], 0
    for number, word in enumerate(text.split()):
        start = text.index(word, position)
        position = start + len(word)
        words.append(Word(start, position, number * word_ms))
    part.audio_ms = len(words) * word_ms
    part.add_speech(0, len(text), text, words, 0.0)
    return part


@pytest.mark.parametrize(
    ("heard_ms", "text"),
    [
        (0, ""),
        (99, ""),
        (100, "One,"),
        (299, "One,"),
        (301, "One, two"),
        (550, "One, two three."),
        (10_000, "One, two three."),
    ],
)
def test_a_word_counts_from_its_middle_on(heard_ms, text):
    part = spoken("One, two three.")
    part.cut(heard_ms)
    assert part.text == text


def test_markup_that_was_not_spoken_does_not_shift_the_words():
    part = Part("output_audio", "Say **yes** or `no` now.")
    part.audio_ms = 1000
    clause = "Say yes or no now."
    words = [
        Word(clause.index(w), clause.index(w) + len(w), i * 200.0) for i, w in enumerate(clause.rstrip(".").split())
    ]
    part.add_speech(0, len(part.text), clause, words, 0.0)
    part.cut(700)
    assert part.text == "Say **yes** or `no`"


@given(st.lists(st.text(st.characters(categories=["L"]), min_size=1, max_size=8), min_size=1, max_size=30), st.data())
def test_what_is_heard_grows_with_time_and_is_always_a_prefix(words, data):
    text = " ".join(words)
    first, second = sorted(data.draw(st.tuples(st.floats(0, 8000), st.floats(0, 8000))))
    part = spoken(text)
    shorter, longer = part.heard_chars(first), part.heard_chars(second)
    assert 0 <= shorter <= longer <= len(text)
    part.cut(second)
    part.cut(first)
    assert part.text == text[:shorter]


def test_insertion_gives_the_true_predecessor():
    history = History()
    a, b, c, d = (Item("message", id=name, role="user") for name in "abcd")
    assert history.insert(a) is None
    assert history.insert(b) == "a"
    assert history.insert(c, "root") is None
    assert history.insert(d, "a") == "a"
    assert [item.id for item in history] == ["c", "a", "d", "b"]
    history.delete("a")
    assert history.predecessor("d") == "c"


@pytest.mark.parametrize(
    ("attempt", "code"),
    [
        (lambda h: h.insert(Item("message", id="a", role="user")), "item_exists"),
        (lambda h: h.insert(Item("message", id="b", role="user"), "zzz"), "item_not_found"),
        (lambda h: h.delete("zzz"), "item_not_found"),
        (lambda h: h.require("zzz"), "item_not_found"),
    ],
)
def test_impossible_edits_are_named(attempt, code):
    history = History()
    history.insert(Item("message", id="a", role="user"))
    with pytest.raises(HistoryError) as error:
        attempt(history)
    assert error.value.code == code


def test_a_chat_model_reads_calls_with_their_results_and_never_one_without():
    history = History()
    history.insert(Item("message", role="user", parts=[Part("input_text", "weather?")]))
    for name in ("one", "two", "lonely"):
        history.insert(Item("function_call", call_id=name, name="weather", arguments="{}"))
    history.insert(Item("function_call_output", call_id="two", output="rain"))
    history.insert(Item("function_call_output", call_id="one", output="sun"))
    history.insert(Item("message", role="assistant", parts=[Part("output_audio", "")], status=ItemStatus.INCOMPLETE))
    system, user, calls, *results = history.messages("Be brief.")
    assert (system.role, system.content) == ("system", "Be brief.")
    assert user.content == "weather?"
    assert [call.id for call in calls.tool_calls] == ["one", "two"]
    assert [(result.tool_call_id, result.content) for result in results] == [("one", "sun"), ("two", "rain")]


def test_user_audio_always_has_the_key_transcript():
    assert Item("message", role="user", parts=[Part("input_audio")]).to_wire()["content"] == [
        {"type": "input_audio", "transcript": None}
    ]
