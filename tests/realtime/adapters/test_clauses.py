"""Clauses: where an answer is cut for the voice, what is spoken of it, and which raw text it stands for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.adapters.clauses import LONGEST, Clause, Clauses, spoken


def cut(text: str, size: int = 1) -> list[Clause]:
    clauses = Clauses()
    found: list[Clause] = []
    for at in range(0, len(text), size):
        found += clauses.push(text[at : at + size])
    return found + clauses.finish()


def texts(text: str) -> list[str]:
    return [clause.text for clause in cut(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("Well of course, I can do that.", ["Well of course,", "I can do that."], id="comma"),
        pytest.param("Sure, I can. Good day.", ["Sure, I can.", "Good day."], id="a comma too early"),
        pytest.param("Here it is: one. Two and three.", ["Here it is:", "one. Two and three."], id="colon"),
        pytest.param("It was late—too late. So it goes.", ["It was late—", "too late.", "So it goes."], id="em dash"),
        pytest.param(
            "one two three four five six seven eight nine ten eleven twelve thirteen fourteen",
            ["one two three four five six seven eight nine ten eleven twelve", "thirteen fourteen"],
            id="no punctuation",
        ),
        pytest.param(
            "I went home early. Then, after some tea, I slept. All was well!",
            ["I went home early.", "Then, after some tea, I slept.", "All was well!"],
            id="later ones are sentences",
        ),
        pytest.param(
            'He said "I will come." Then he left us.', ['He said "I will come."', "Then he left us."], id="quotes"
        ),
        pytest.param(
            "One line of text\nAnother line\n\nThird", ["One line of text", "Another line", "Third"], id="lines"
        ),
        pytest.param("Is that so?! I had no idea… Go on.", ["Is that so?!", "I had no idea…", "Go on."], id="marks"),
    ],
)
def test_cuts(text: str, expected: list[str]) -> None:
    assert texts(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "It costs about 3.5 million or 1,000 or 1,000.50 at 10:30 or 2.5.1 sharp",
        "Ask Mr. Smith or Dr. Jones or Prof. Lee",
        "Fruit, e.g. apples",
        "They live in the U.S. now",
        "Meet J. R. R. Tolkien there",
        "Look at https://example.com/a.b,c;d:e?x=1.5!y or www.example.com/x.y now",
        "See the item No. 5 there",
        "1. First",
        "see pp. 3 there (cf. also etc. or so)",
        "bring it at 5 p.m. please",
    ],
)
def test_never_cuts_inside(text: str) -> None:
    if text.startswith("Fruit"):
        assert texts(text) == [text]
    else:
        assert texts(f"Yes I do.\n{text}") == ["Yes I do.", text]


def test_the_first_clause_is_out_before_the_answer_ends() -> None:
    clauses = Clauses()
    assert clauses.push("Well of course, ") == []
    assert [clause.text for clause in clauses.push("I")] == ["Well of course,"]


def test_full_width_punctuation_needs_no_space() -> None:
    assert texts("你好，我是你的助手。今天天气很好！你想知道什么？") == [
        "你好，我是你的助手。",
        "今天天气很好！",
        "你想知道什么？",
    ]
    assert texts("はい、わかりました、すぐに行きます。")[0] == "はい、わかりました、"
    assert texts("他说：“我很好。”然后他走了。")[-1] == "然后他走了。"


def test_an_overlong_sentence_is_cut_at_a_comma() -> None:
    text = "Good day to you. " + ", ".join(["and then we walked a little further down the road"] * 8) + "."
    clauses = cut(text)
    assert clauses[0].text == "Good day to you."
    assert len(clauses) > 2
    assert all(clause.text.endswith((",", ".")) and len(clause.text) <= 260 for clause in clauses)


def test_endless_text_without_space_stays_bounded() -> None:
    assert [len(clause.text) for clause in cut("a" * (2 * LONGEST + 10), 100)] == [LONGEST, LONGEST, 10]
    assert [(clause.text, clause.start) for clause in cut("*" * (2 * LONGEST + 10) + "end", 100)] == [("end", 0)]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("**Bold, and** _thin_ and `code`", "Bold, and thin and code"),
        ("# Heading", "Heading"),
        ("- milk", "milk"),
        ("* milk", "milk"),
        ("  + milk", "milk"),
        ("> quoted", "quoted"),
        ("see [the page, here](https://a.b/c_d_(e)) now", "see the page, here now"),
        ("![a cat](cat.png)", "a cat"),
        ("2 * 3 and 2*3 is 6 with snake_case", "2 * 3 and 2*3 is 6 with snake_case"),
        ("-5 degrees", "-5 degrees"),
        ("#1 of all", "#1 of all"),
        ("https://a.b/_x_y", "https://a.b/_x_y"),
        ("**https://a.b/c**", "https://a.b/c"),
        ("```python\nprint(1)\n```", "print(1)"),
        ("---", ""),
        ("...", ""),
        (" \n", ""),
        ("~~old~~  new\n\tline", "old new line"),
    ],
)
def test_markup_is_not_spoken(raw: str, expected: str) -> None:
    assert spoken(raw)[0] == expected


def test_lists_are_spoken_item_by_item() -> None:
    assert texts("You need:\n- **milk**, fresh\n- eggs\n\n1. Go out.\n2. Buy it.") == [
        "You need:",
        "milk, fresh",
        "eggs",
        "1. Go out.",
        "2. Buy it.",
    ]


def test_a_link_stays_whole() -> None:
    text = "Please look at [this, that. And more](https://a.b/c) before you go."
    assert texts(text) == ["Please look at this, that. And more before you go."]


def test_nothing_to_say() -> None:
    assert cut("") == []
    assert cut(" *** \n---\n ") == []


def test_raw_offsets_lead_from_spoken_text_to_the_source() -> None:
    raw = "**Hello** there, friend.  And [more](http://x.y) of it."
    for clause in cut(raw):
        for at, character in enumerate(clause.text):
            source = raw[clause.raw_offset(at)] if at else character
            assert character == source or (character == " " and source.isspace())
        assert clause.raw_offset(len(clause.text)) == clause.end
        assert clause.raw_offset(0) == clause.start


ALPHABET = st.sampled_from(
    [
        *"abcXYZ019 .,;:!?—…\n*_`#-[]()\"'>~",
        " the ",
        "Mr. ",
        "3.5",
        "。",
        "，",
        "你好",
        "http://a.b/c ",
        "word ",
        "\r\n",
        "é",
        "🙂",
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ALPHABET, max_size=250).map("".join), st.data())
def test_spans_tile_the_text_however_it_is_chopped(text: str, data: st.DataObject) -> None:
    whole = cut(text, max(1, len(text)))
    position = 0
    for clause in whole:
        assert clause.start == position < clause.end
        assert clause.text.strip() == clause.text != ""
        assert clause.end - clause.start <= len(text)
        position = clause.end
    assert spoken(text[position:], line_start=False)[0] == "" or spoken(text[position:])[0] == ""
    assert cut(text, 1) == whole
    chopped = Clauses()
    found: list[Clause] = []
    at = 0
    while at < len(text):
        size = data.draw(st.integers(1, 40))
        found += chopped.push(text[at : at + size])
        at += size
    assert found + chopped.finish() == whole


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.sampled_from(["3.5", "1,000", "10:30", "2026.", "and", "so,", "it.", "e.g.", "U.S.", "http://a.b/c,d."]),
        max_size=60,
    )
)
def test_words_come_out_whole(words: list[str]) -> None:
    assert " ".join(clause.text for clause in cut(" ".join(words))).split() == words
