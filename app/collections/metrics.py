"""Metrics of collections."""

from __future__ import annotations

from app.collections.hosted import HostedCollection
from app.telemetry import Telemetry


def register_collection(telemetry: Telemetry, hosted: HostedCollection) -> None:
    """Register the metrics of one collection; `telemetry.remove(collection=name)` removes them."""
    gauge, label = telemetry.gauge, {"collection": hosted.name}
    telemetry.counter("swaps", "Versions replaced since the start.", lambda: hosted.status.swaps, **label)
    compactor = hosted.compactor
    telemetry.counter("compactions", "Compactions that succeeded.", lambda: compactor.runs, **label)
    telemetry.counter("compaction_failures", "Compactions that failed.", lambda: compactor.failures, **label)
    gauge("items", "Items in the collection; 0 while it is not open.", hosted.item_count, **label)
    gauge("pending_writes", "Items written since the version was built.", lambda: hosted.pending_writes, **label)
    gauge("collection_failed", "Whether the newest version could not be opened.", hosted.has_failed, **label)
    gauge("collection_ready", "Whether the collection is open and its last probe passed.", hosted.is_healthy, **label)
    gauge("index_bytes", "Files of the version that serves; most are mapped.", hosted.size_bytes, **label)
