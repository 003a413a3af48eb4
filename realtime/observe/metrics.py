"""Prometheus metrics of one process, in a registry of their own. Names follow Prometheus' conventions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

from media.lateness import BOUNDS_S, Lateness

_SECONDS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)


class Metrics:
    """One registry per application, so that two in one process (tests) do not mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, CPU, and open files against how many may be
        self.calls = Gauge("realtime_calls", "Calls under way.", registry=self.registry)
        self._opened = Counter("realtime_calls_opened_total", "Calls admitted.", registry=self.registry)
        self._ended = Counter("realtime_calls_ended_total", "Calls ended, by why.", ["reason"], registry=self.registry)
        self._refused = Counter(
            "realtime_calls_refused_total",
            "Calls refused, by why: full, overloaded, draining, secret.",
            ["reason"],
            registry=self.registry,
        )
        self._connections = Counter(
            "realtime_connections_refused_total",
            "Connections and requests refused because their address has too many.",
            registry=self.registry,
        )
        self._turns = Counter("realtime_turns_total", "Turns, by how they ended.", ["status"], registry=self.registry)
        self._voice_to_voice = Histogram(
            "realtime_voice_to_voice_seconds",
            "End of the caller's speech to the first packet of the answer.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._barge_in = Histogram(
            "realtime_barge_in_seconds",
            "Onset of the caller's speech over the bot to the cut.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._engine_errors = Counter(
            "realtime_engine_errors_total", "Engine failures.", ["kind", "code"], registry=self.registry
        )

        self._cost = Counter(
            "realtime_call_cost_usd_total", "Cost of calls of which every price is known.", registry=self.registry
        )
        self._unpriced = Counter(
            "realtime_calls_unpriced_total", "Calls that used an engine without a known price.", registry=self.registry
        )

        self._recordings = Counter(
            "realtime_recording_troubles_total",
            "Recordings that lost sound or were not kept, by why.",
            ["reason"],
            registry=self.registry,
        )

    def watch(self, *, limit: int, accepts: Callable[[], bool], lags: Lateness, packets: Lateness) -> None:
        """What is read when somebody asks. `limit`: of calls. `lags`: of the event loop."""
        gauge = Gauge("realtime_calls_limit", "Calls that are admitted at once.", registry=self.registry)
        gauge.set(limit)
        ready = Gauge("realtime_accepting_calls", "1 while the next call would be admitted.", registry=self.registry)
        ready.set_function(lambda: float(accepts()))
        self.registry.register(
            _LatenessCollector("realtime_event_loop_lag_seconds", "How late the event loop's beats are.", lags)
        )
        self.registry.register(
            _LatenessCollector("realtime_packet_lateness_seconds", "How late packets to callers leave.", packets)
        )

    def call_opened(self) -> None:
        self._opened.inc()
        self.calls.inc()

    def call_ended(self, reason: str) -> None:
        self._ended.labels(reason).inc()
        self.calls.dec()

    def call_refused(self, reason: str) -> None:
        self._refused.labels(reason).inc()

    def connection_refused(self) -> None:
        self._connections.inc()

    def turn(self, status: str, numbers: Mapping[str, Any]) -> None:
        """`numbers`: a turn's public record (milliseconds)."""
        self._turns.labels(status).inc()
        if (voice_to_voice := numbers.get("voice_to_voice_ms")) is not None:
            self._voice_to_voice.observe(voice_to_voice / 1000)
        if (barge_in := numbers.get("barge_in_ms")) is not None:
            self._barge_in.observe(barge_in / 1000)

    def engine_failed(self, kind: str, code: str) -> None:
        self._engine_errors.labels(kind, code).inc()

    def recording_trouble(self, reason: str) -> None:
        self._recordings.labels(reason).inc()

    def spent(self, usd: float | None) -> None:
        """On one call."""
        if usd is None:
            self._unpriced.inc()
        else:
            self._cost.inc(usd)

    def exposition(self) -> bytes:
        """The text format that `GET /metrics` answers with."""
        return generate_latest(self.registry)


class _LatenessCollector(Collector):
    def __init__(self, name: str, text: str, lateness: Lateness) -> None:
        self._name, self._text, self._lateness = name, text, lateness

    def collect(self) -> Iterator[HistogramMetricFamily]:
        ends = [*(str(bound) for bound in BOUNDS_S), "+Inf"]
        buckets = list(zip(ends, accumulate(self._lateness.counts), strict=True))
        yield HistogramMetricFamily(self._name, self._text, buckets, self._lateness.total_s)
