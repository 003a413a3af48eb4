"""The locator agrees with tomllib about what there is, and with the eye about where it stands."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realtime.toml_lines import KeyPath, line_of, locate

TEXT = '''# a comment with [brackets] and "quotes"
title = "a # that is no comment"
"odd key" = 'C:\\no\\escapes'
owner.name = "dotted"

[server]
port = 8080          # a comment
text = """
[not.a.table]
key = "nothing" \\" """
raw = \'\'\'
]]
\'\'\'

[agents."the one".turn_detection]
threshold = 0.5

[[models]]
id = "one"
[models.prices]
in = 1

[[models]]
id = "two"
tools = [
  # between
  { name = "a", parameters = { type = "object" } },
  { name = "b" },
]
when = 1979-05-27 07:32:00
'''

PLACES: list[tuple[KeyPath, int]] = [
    (("title",), 2),
    (("odd key",), 3),
    (("owner", "name"), 4),
    (("server",), 6),
    (("server", "port"), 7),
    (("server", "text"), 8),
    (("server", "raw"), 11),
    (("agents", "the one", "turn_detection"), 15),
    (("agents", "the one", "turn_detection", "threshold"), 16),
    (("models", 0), 18),
    (("models", 0, "id"), 19),
    (("models", 0, "prices", "in"), 21),
    (("models", 1), 23),
    (("models", 1, "id"), 24),
    (("models", 1, "tools", 0, "parameters", "type"), 27),
    (("models", 1, "tools", 1, "name"), 28),
    (("models", 1, "when"), 30),
]


@pytest.mark.parametrize(("path", "line"), PLACES, ids=[".".join(map(str, path)) for path, _ in PLACES])
def test_finds_the_line(path: KeyPath, line: int) -> None:
    assert locate(TEXT)[path] == line


def test_falls_back_to_the_table_around_it() -> None:
    lines = locate(TEXT)
    assert line_of(lines, ("models", 1, "missing")) == 23
    assert line_of(lines, ("nothing", "here")) is None


def test_windows_line_ends_count_once() -> None:
    assert locate("a = 1\r\n\r\n[b]\r\nc = 2\r\n")["b", "c"] == 4


VALUES = st.recursive(
    st.integers(-5, 5) | st.booleans() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{quoted(key)} = {inline(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[\n" + "".join(f"  {inline(item)}, # ]\n" for item in value) + "]"
    return quoted(value) if isinstance(value, str) else json.dumps(value)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def paths(value: Any, at: KeyPath = ()) -> set[KeyPath]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {at} | {path for key, item in items for path in paths(item, (*at, key))}


@given(
    st.dictionaries(st.text(max_size=5), VALUES, max_size=4), st.dictionaries(st.text(max_size=5), VALUES, max_size=3)
)
def test_finds_everything_that_tomllib_finds(top: dict[str, Any], table: dict[str, Any]) -> None:
    top.pop("table", None)
    rows = [f"{quoted(key)} = {inline(value)}" for key, value in top.items()]
    rows += ["[[table]]", *(f"{quoted(key)} = {inline(value)}" for key, value in table.items())]
    text = "\n".join(rows)
    assert set(locate(text)) == paths(tomllib.loads(text)) - {()}
