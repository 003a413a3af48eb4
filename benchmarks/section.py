"""One benchmark's part of a page, between two marks: written anew, the rest of the page left as it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def put(page: Path, mark: str, text: str) -> None:
    """`text` between the marks, which are put at the end of the page when it has none."""
    line = f"<!-- {mark} -->"
    before, _, rest = (page.read_text() if page.exists() else "").partition(line)
    _, _, after = rest.partition(line)
    parts = [before.rstrip(), f"{line}\n{text.strip()}\n{line}", after.strip()]
    page.write_text("\n\n".join(part for part in parts if part) + "\n")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
