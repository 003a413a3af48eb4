from hypothesis import given
from hypothesis import strategies as st

from realtime.adapters.embedded.voice_engine import pieces


def cut(text: str, longest: int) -> list[str]:
    return [text[start:stop] for start, stop in pieces(text, longest)]


def test_a_text_is_cut_after_sentences_else_clauses_else_words() -> None:
    assert cut("One two. Three four! Five six seven.", 24) == ["One two. Three four!", " Five six seven."]
    assert cut("one two, three four five six", 20) == ["one two,", " three four five six"]
    assert cut("one two three four", 10) == ["one two ", "three four"]
    assert cut("x" * 25, 10) == ["x" * 10, "x" * 10, "x" * 5]
    assert cut("", 10) == []


@given(st.text(alphabet="ab .,!\n。", max_size=200), st.integers(1, 50))
def test_pieces_are_bounded_and_lose_nothing(text: str, longest: int) -> None:
    parts = cut(text, longest)
    assert "".join(parts) == text
    assert all(0 < len(part) <= longest for part in parts)
