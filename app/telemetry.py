"""Metrics for Prometheus, and recent times of query stages.

The one entry point for prometheus_client. No key, text or image is recorded.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_SIZE_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
_RECENT_QUERIES = 1000


class Telemetry:
    """The service's metrics.

    Attributes:
        on_query: called with the stages of every query, milliseconds by stage.
        trace_id: returns the trace id of the current request: 32 hexadecimal digits, empty where it is not traced.
    """

    def __init__(self) -> None:
        self.on_query: Callable[[Mapping[str, float]], None] = lambda took_ms: None
        self.trace_id: Callable[[], str] = lambda: ""
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "lookalike_requests", "Requests answered.", ["route", "method", "status"], registry=self._registry
        )
        self._request_seconds = Histogram(
            "lookalike_request_seconds", "From a request's head to its response.", ["route"],
            buckets=_SECONDS_BUCKETS, registry=self._registry,
        )  # fmt: skip
        self._stages = Histogram(
            "lookalike_stage_seconds", "What a stage of a query took.", ["stage"], buckets=_SECONDS_BUCKETS,
            registry=self._registry,
        )  # fmt: skip
        self._batches = Histogram(
            "lookalike_batch_size", "Queries in a batch of the encoder or of a search.", ["kind"],
            buckets=_SIZE_BUCKETS, registry=self._registry,
        )  # fmt: skip
        self._errors = Counter("lookalike_errors", "Problems answered.", ["code"], registry=self._registry)
        self._gauges: dict[str, Gauge] = {}
        self._counters: dict[str, _ReadCounter] = {}
        self._by_labels: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)  # label names -> metrics
        self._recent: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_RECENT_QUERIES))

    def gauge(self, name: str, text: str, read: Callable[[], float], **labels: str) -> None:
        """Register the gauge `lookalike_<name>`, which is read at every scrape."""
        if name not in self._gauges:
            self._gauges[name] = Gauge(f"lookalike_{name}", text, list(labels), registry=self._registry)
        gauge = self._gauges[name]
        self._by_labels[tuple(labels)].add(name)
        (gauge.labels(**labels) if labels else gauge).set_function(read)

    def counter(self, name: str, text: str, read: Callable[[], float], **labels: str) -> None:
        """Register the counter `lookalike_<name>_total`, which is read at every scrape."""
        if name not in self._counters:
            self._counters[name] = _ReadCounter(f"lookalike_{name}", text, list(labels))
            self._registry.register(self._counters[name])
        self._counters[name].read[tuple(labels.values())] = read
        self._by_labels[tuple(labels)].add(name)

    def remove(self, **labels: str) -> None:
        """Remove the gauges and counters with exactly these labels."""
        values = tuple(labels.values())
        for name in self._by_labels[tuple(labels)]:
            if name in self._gauges:
                self._gauges[name].remove(*values)
            else:
                del self._counters[name].read[values]

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that ended, and its time."""
        self._requests.labels(route, method, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def observe_query(self, took_ms: Mapping[str, float]) -> None:
        """Record the stages of a query, milliseconds by stage."""
        for stage, milliseconds in took_ms.items():
            self._stages.labels(stage).observe(milliseconds / 1000.0)
            self._recent[stage].append(milliseconds)
        self.on_query(took_ms)

    def observe_batch(self, kind: str, size: int) -> None:
        """Record the size of a batch."""
        self._batches.labels(kind).observe(size)

    def count_error(self, code: str) -> None:
        """Count an error response."""
        self._errors.labels(code).inc()

    def prometheus(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def stages(self) -> dict[str, dict[str, float]]:
        """Return for each stage count, median, p90, p99 and mean, ms, of the last 1,000 queries that needed it."""
        table = {}
        for stage, times in self._recent.items():
            p50, p90, p99 = np.percentile(times, (50, 90, 99))
            numbers = {"p50": p50, "p90": p90, "p99": p99, "mean": np.mean(times)}
            table[stage] = {"count": len(times), **{name: round(float(value), 3) for name, value in numbers.items()}}
        return table


class _ReadCounter(Collector):
    """A counter whose values are read elsewhere, by its labels' values."""

    def __init__(self, name: str, text: str, labels: list[str]) -> None:
        self.read: dict[tuple[str, ...], Callable[[], float]] = {}
        self._description = name, text, labels

    @override
    def collect(self) -> Iterable[Metric]:
        name, text, labels = self._description
        family = CounterMetricFamily(name, text, labels=labels)
        for values, read in self.read.items():
            family.add_metric(values, read())
        return [family]
