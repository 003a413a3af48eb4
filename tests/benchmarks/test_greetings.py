"""That `python -m benchmarks.greetings` measures both ways. No figure is judged here."""

from benchmarks.greetings import compare


async def test_both_ways_are_measured() -> None:
    rows = [line.split("|")[1].strip() for line in (await compare(1)).splitlines() if line.startswith("|")]
    assert rows == ["made and encoded", "---", "for each call", "kept"]
