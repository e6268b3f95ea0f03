"""Metrics of the service's parts, apart from those of each collection."""

from __future__ import annotations

from functools import partial

from app.admission import AdmissionControllers
from app.collections.runtime import Runtime
from app.telemetry import Telemetry


def register_workers(telemetry: Telemetry, runtime: Runtime) -> None:
    """Register the metrics of the threads that decode, encode and search."""
    encoder, gauge = runtime.encoder_workers, telemetry.gauge
    gauge("waiting", "Queries that wait for the device.", encoder.queue_size)
    gauge("device_busy_seconds", "How long the oldest batch on the device has taken.", encoder.busy_seconds)
    gauge("decodes_waiting", "Images that wait to be decoded.", runtime.decode_workers.queue_size)
    gauge("searches_waiting", "Queries that wait for a search.", runtime.search_workers.queue_size)


def register_admission(telemetry: Telemetry, admission: AdmissionControllers) -> None:
    """Register the metrics of each kind of query's admission."""
    gauge, counter = telemetry.gauge, telemetry.counter
    for kind, controller in admission.by_kind.items():
        in_flight, refused = (partial(getattr, controller, name) for name in ("in_flight", "refused"))
        gauge("under_way", "Queries in flight.", in_flight, kind=kind)
        counter("refused", "Queries refused since the start.", refused, kind=kind)
        gauge("expected_wait_seconds", "Expected wait of a new query.", controller.expected_wait, kind=kind)
