"""What Prometheus reads: well formed, named by its rules, told to the operator, and true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from media.lateness import Lateness
from realtime.observe.metrics import Metrics

DOCS = Path(__file__).parents[3] / "docs/deploy.md"
UNITS = ("_seconds", "_usd", "_bytes")


def watched(lags: Lateness | None = None, *, accepts: bool = True) -> Metrics:
    metrics = Metrics()
    metrics.watch(limit=20, accepts=lambda: accepts, lags=lags or Lateness(10), packets=Lateness(10))
    return metrics


def families(metrics: Metrics) -> dict[str, Metric]:
    found = text_string_to_metric_families(metrics.exposition().decode())
    return {family.name: family for family in found if not family.name.endswith("_created")}


def test_names_follow_the_conventions():
    for name, family in families(watched()).items():
        if name.startswith("process_"):
            continue
        assert re.fullmatch(r"realtime_[a-z]+(_[a-z]+)*", name)
        assert family.documentation.strip()
        assert family.type in ("counter", "gauge", "histogram"), name
        assert family.type != "histogram" or name.endswith(UNITS)
        assert not re.search(r"_(ms|milliseconds|count|sum|bucket|info)$", name)
        assert not name.endswith(family.type)
        assert all(re.fullmatch(r"[a-z]+", label) for sample in family.samples for label in sample.labels)


def test_every_one_is_documented():
    text = DOCS.read_text(encoding="utf-8")
    exposed = {
        name + ("_total" if family.type == "counter" else "")
        for name, family in families(watched()).items()
        if not name.startswith("process_")
    }
    told = set(re.findall(r"\brealtime_[a-z_]+(?=[`{ ])", text.partition("Rules to begin with")[0]))
    assert told == exposed
    known = exposed | {f"{name}_bucket" for name in exposed} | {"process_open_fds", "process_max_fds"}
    for rule in re.findall(r"expr: (.*)", text):
        assert set(re.findall(r"\b(?:realtime|process)_[a-z_]+", rule)) <= known


def test_how_near_it_is_to_full_can_be_told():
    metrics = watched(accepts=False)
    metrics.call_opened()
    found = families(metrics)
    (calls,), (limit,), (accepting,) = (
        found[name].samples for name in ("realtime_calls", "realtime_calls_limit", "realtime_accepting_calls")
    )
    assert (calls.value, limit.value, accepting.value) == (1, 20, 0)


def test_the_lag_is_a_histogram_of_every_beat():
    lags = Lateness(2)
    metrics = watched(lags)
    for seconds in (0.0004, 0.03, 0.03, 5.0):
        lags.note(seconds)
    samples = families(metrics)["realtime_event_loop_lag_seconds"].samples
    buckets = {sample.labels["le"]: sample.value for sample in samples if sample.name.endswith("_bucket")}
    assert (buckets["0.001"], buckets["0.02"], buckets["0.04"], buckets["1.0"], buckets["+Inf"]) == (1, 1, 3, 3, 4)
    assert list(buckets.values()) == sorted(buckets.values())
    (total,) = [sample.value for sample in samples if sample.name.endswith("_sum")]
    (count,) = [sample.value for sample in samples if sample.name.endswith("_count")]
    assert (total, count) == (pytest.approx(5.0604), 4)
