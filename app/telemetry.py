"""What the service tells of itself: counts and times for Prometheus, recent times for people, a name for each request.

The one door to prometheus_client. Others hand in what happened; nothing of a key, a text or an image comes in here.
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

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
_RECENT = 1000


class Telemetry:
    """The service's counters.

    Attributes:
        on_query: told of every query's stages, too: milliseconds by stage.
        trace_id: of the request that is under way, where it is traced; 32 hexadecimal digits or empty.
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
            "lookalike_request_seconds", "From a request's head to its answer.", ["route"], buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._stages = Histogram(
            "lookalike_stage_seconds", "What a stage of a query took.", ["stage"], buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._batches = Histogram(
            "lookalike_batch_size", "Queries in a batch of the encoder or of a search.", ["kind"], buckets=_SIZES,
            registry=self._registry,
        )  # fmt: skip
        self._errors = Counter("lookalike_errors", "Problems answered.", ["code"], registry=self._registry)
        self._gauges: dict[str, Gauge] = {}
        self._counts: dict[str, _Counts] = {}
        self._named_by: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)  # labels -> who has them
        self._recent: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=_RECENT))

    def gauge(self, name: str, text: str, read: Callable[[], float], **labels: str) -> None:
        """A value that is read whenever somebody asks: `lookalike_<name>`."""
        if name not in self._gauges:
            self._gauges[name] = Gauge(f"lookalike_{name}", text, list(labels), registry=self._registry)
        gauge = self._gauges[name]
        self._named_by[tuple(labels)].add(name)
        (gauge.labels(**labels) if labels else gauge).set_function(read)

    def counter(self, name: str, text: str, read: Callable[[], float], **labels: str) -> None:
        """A count that another keeps, read whenever somebody asks: `lookalike_<name>_total`."""
        if name not in self._counts:
            self._counts[name] = _Counts(f"lookalike_{name}", text, list(labels))
            self._registry.register(self._counts[name])
        self._counts[name].read[tuple(labels.values())] = read
        self._named_by[tuple(labels)].add(name)

    def remove(self, **labels: str) -> None:
        """What `gauge` and `counter` were told of just these labels is told no more."""
        values = tuple(labels.values())
        for name in self._named_by[tuple(labels)]:
            if name in self._gauges:
                self._gauges[name].remove(*values)
            else:
                del self._counts[name].read[values]

    def count_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request came to its end."""
        self._requests.labels(route, method, str(status)).inc()
        self._request_seconds.labels(route).observe(seconds)

    def observe_query(self, took_ms: Mapping[str, float]) -> None:
        """A query passed; stage -> milliseconds."""
        for stage, milliseconds in took_ms.items():
            self._stages.labels(stage).observe(milliseconds / 1000.0)
            self._recent[stage].append(milliseconds)
        self.on_query(took_ms)

    def observe_batch(self, kind: str, size: int) -> None:
        """A batch left for the device."""
        self._batches.labels(kind).observe(size)

    def count_error(self, code: str) -> None:
        """A problem was answered."""
        self._errors.labels(code).inc()

    def prometheus(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def stages(self) -> dict[str, dict[str, float]]:
        """Stage -> of the last 1,000 queries that needed it: how many, and the median, p90, p99 and mean, ms."""
        table = {}
        for stage, times in self._recent.items():
            p50, p90, p99 = np.percentile(times, (50, 90, 99))
            numbers = {"p50": p50, "p90": p90, "p99": p99, "mean": np.mean(times)}
            table[stage] = {"count": len(times), **{name: round(float(value), 3) for name, value in numbers.items()}}
        return table


class _Counts(Collector):
    """Counts that others keep, by their labels' values."""

    def __init__(self, name: str, text: str, labels: list[str]) -> None:
        self.read: dict[tuple[str, ...], Callable[[], float]] = {}
        self._described = name, text, labels

    def collect(self) -> Iterable[Metric]:
        """As Prometheus' client asks for them."""
        name, text, labels = self._described
        family = CounterMetricFamily(name, text, labels=labels)
        for values, read in self.read.items():
            family.add_metric(values, read())
        return [family]
