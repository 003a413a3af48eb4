"""How far what was understood is from what was said."""

from __future__ import annotations


def word_errors(said: str, understood: str) -> int:
    """Words wrong, missing and too many: the edit distance in words."""
    wanted, got = said.split(), understood.split()
    row = list(range(len(got) + 1))
    for done, word in enumerate(wanted, 1):
        left, row[0] = row[0], done
        for at, other in enumerate(got, 1):
            left, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, left + (word != other))
    return row[-1]
