"""Which line of a TOML text each key and array element stands on.

`tomllib` throws positions away; a mistake in the settings should name its line. `locate` reads text that
`tomllib` has already accepted, so it follows structure and never validates: values are skipped, not
parsed. Tables, dotted and quoted keys, arrays of tables, arrays and inline tables are followed.
"""

from __future__ import annotations

import tomllib
from bisect import bisect_right
from typing import TypeAlias

KeyPath: TypeAlias = tuple[str | int, ...]
"""`("models", 0, "id")`: keys, and indices into arrays."""

_BLANK = " \t\r\n"


def locate(text: str) -> dict[KeyPath, int]:
    """Line (from 1) of every table, key and array element of a valid TOML text."""
    return _Scanner(text).run()


def line_of(lines: dict[KeyPath, int], path: KeyPath) -> int | None:
    """The line of `path`, or of the nearest table or array around it; None for the whole file."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return None


class _Scanner:
    """One pass over the text; `_at` is the only state that moves."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._starts = [0, *(i + 1 for i, char in enumerate(text) if char == "\n")]
        self._lines: dict[KeyPath, int] = {}
        self._elements: dict[KeyPath, int] = {}

    def run(self) -> dict[KeyPath, int]:
        table: KeyPath = ()
        self._skip_blank()
        while self._at < len(self._text):
            if self._peek() == "[":
                table = self._header()
            else:
                self._pair(table)
            self._skip_blank()
        return self._lines

    def _header(self) -> KeyPath:
        """`[a.b]` or `[[a.b]]`: the path that the keys below it stand under."""
        start = self._at
        is_array = self._text.startswith("[[", self._at)
        self._at += 2 if is_array else 1
        key = self._key()
        self._at = self._text.index("]", self._at) + (2 if is_array else 1)
        path: KeyPath = ()
        for part in key[:-1]:
            path = (*path, part)
            self._note(path, start)
            if path in self._elements:
                path = (*path, self._elements[path] - 1)
        path = (*path, key[-1])
        self._note(path, start)
        if is_array:
            index = self._elements.get(path, 0)
            self._elements[path] = index + 1
            path = (*path, index)
            self._note(path, start)
        return path

    def _pair(self, table: KeyPath) -> None:
        start = self._at
        path = table
        for part in self._key():
            path = (*path, part)
            self._note(path, start)
        self._at = self._text.index("=", self._at) + 1
        self._skip_blank()
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        char = self._peek()
        if char == "[":
            self._array(path)
        elif char == "{":
            self._inline_table(path)
        elif char in "\"'":
            self._string()
        else:
            while self._at < len(self._text) and self._peek() not in ",]}#\n":
                self._at += 1

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        index = 0
        self._skip_blank()
        while self._peek() != "]":
            self._note((*path, index), self._at)
            self._value((*path, index))
            index += 1
            self._skip_separator()
        self._at += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        self._skip_blank()
        while self._peek() != "}":
            self._pair(path)
            self._skip_separator()
        self._at += 1

    def _key(self) -> list[str]:
        parts: list[str] = []
        while True:
            self._skip_blank()
            start = self._at
            if self._peek() in "\"'":
                self._string()
                parts.append(tomllib.loads(f"k = {self._text[start : self._at]}")["k"])
            else:
                while self._peek().isalnum() or self._peek() in "_-":
                    self._at += 1
                parts.append(self._text[start : self._at])
            while self._peek() in " \t":
                self._at += 1
            if self._peek() != ".":
                return parts
            self._at += 1

    def _string(self) -> None:
        quote = self._peek()
        delimiter = quote * 3 if self._text.startswith(quote * 3, self._at) else quote
        self._at += len(delimiter)
        while not self._text.startswith(delimiter, self._at):
            self._at += 2 if quote == '"' and self._peek() == "\\" else 1
        self._at += len(delimiter)
        while len(delimiter) == 3 and self._text.startswith(quote, self._at):
            self._at += 1  # a multi-line string may end in quotes of its own

    def _skip_blank(self) -> None:
        """White space, newlines and comments."""
        while self._at < len(self._text):
            if self._text[self._at] in _BLANK:
                self._at += 1
            elif self._text[self._at] == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            else:
                return

    def _skip_separator(self) -> None:
        self._skip_blank()
        if self._peek() == ",":
            self._at += 1
            self._skip_blank()

    def _peek(self) -> str:
        return self._text[self._at]

    def _note(self, path: KeyPath, at: int) -> None:
        self._lines.setdefault(path, bisect_right(self._starts, at))
