"""How late things came: a percentile of the latest, buckets of all."""

from __future__ import annotations

import pytest

from media.lateness import BOUNDS_S, Lateness


def test_the_percentile_is_over_the_latest_and_the_buckets_over_all():
    late = Lateness(100)
    assert late.p99_ms == 0
    for _ in range(100):
        late.note(0.5)
    for _ in range(100):
        late.note(-0.1)
    assert (late.known, late.p99_ms) == (100, 0)
    late.note(0.03)
    late.note(0.03)
    assert late.p99_ms == pytest.approx(30)
    assert sum(late.counts) == 202
    assert late.counts[BOUNDS_S.index(1.0)] == 100
    assert late.counts[0] == 100
    assert late.total_s == pytest.approx(50.06)
    late.forget()
    assert (late.known, sum(late.counts)) == (0, 202)


def test_a_bucket_holds_its_upper_end_and_the_last_everything():
    late = Lateness(1)
    late.note(BOUNDS_S[2])
    late.note(3600)
    assert late.counts[2] == late.counts[-1] == 1
