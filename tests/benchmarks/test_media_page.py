"""What `python -m benchmarks.media --write` puts into a page. No figure is judged here."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import machine, media

PAGE = Path(__file__).parents[2] / "docs" / "media.md"


def whole(others: float) -> dict[str, object]:
    load = {"calls": 75, "ms_per_call_second": 5.0, "calls_per_core": 200.0, "packets_missing": 0}
    load["lateness_ms"] = {"p50": 1.0, "p95": 2.0, "p99": 3.0}
    result = {"conversation": load, "duplex": load, "stock_duplex": load, "limit": None, "ratio_to_stock": 5.1}
    result["ratios_to_stock"] = [4.9, 5.1, 5.2]
    return {"machine": machine.describe(), "others_cores": others, "media": result}


def test_the_section_replaces_the_one_before_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "media.md"
    page.write_text(PAGE.read_text())
    for _ in range(2):
        media.write(whole(0.1), page)
    before, after = PAGE.read_text().split("<!-- media -->")[::2]
    assert page.read_text().startswith(before)
    assert page.read_text().endswith(after)
    assert page.read_text().count("5.1 times what stock aiortc does") == 1


def test_figures_from_a_busy_machine_say_that_they_do_not_count() -> None:
    assert "do not count" in media.section(whole(machine.QUIET_CORES + 0.1))
    assert "do not count" not in media.section(whole(0.0))


def test_a_page_without_a_place_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "other.md"
    page.write_text("# Other\n")
    with pytest.raises(ValueError, match="no section"):
        media.write(whole(0.0), page)
    assert page.read_text() == "# Other\n"
