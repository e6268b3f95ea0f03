"""The connection to a Ray cluster, and the places on its machines where a worker can run."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from lookalike.errors import ClusterUnavailable, ConfigInvalid, ExtraMissing

AUTO = "auto"
_CONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """Which cluster encodes, and how.

    Attributes:
        address: `HOST:PORT`; `auto` for the cluster that runs on this machine, or that `RAY_ADDRESS` names.
        gpus_per_worker: may be a fraction, so that workers share a GPU; 0 to encode on CPUs; None for 1 where the
            cluster has GPUs, else 0.
    """

    address: str = AUTO
    gpus_per_worker: float | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker runs.

    Attributes:
        node_id: of the machine, as Ray counts them.
        host: its address.
        cpus: CPUs of the worker, all of the machine's that no other worker has.
        gpus: GPUs of the worker.
    """

    node_id: str
    host: str
    cpus: int
    gpus: float


@contextmanager
def connected(settings: ClusterSettings) -> Iterator[None]:
    """Connect this process to a cluster, unless it is connected already.

    Raises:
        ExtraMissing: Ray is not installed.
        ConfigInvalid: the settings are invalid.
        ClusterUnavailable: no cluster runs at the address.
    """
    if not 0 <= (settings.gpus_per_worker or 0) < math.inf:
        raise ConfigInvalid(f"gpus_per_worker is {settings.gpus_per_worker:g}; it must be 0 or more")
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ExtraMissing("ray is not installed: pip install 'lookalike[ray]'") from error
    if ray.is_initialized():
        yield
        return
    _connect(settings.address)
    try:
        yield
    finally:
        ray.shutdown()


def _connect(address: str) -> None:
    import ray

    named = os.environ.get("RAY_ADDRESS", AUTO) if address == AUTO else address
    if named != AUTO:
        _require_listening(named)
    try:
        ray.init(address=named, log_to_driver=False, logging_level=logging.WARNING)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        if named == AUTO:
            reason = (
                "no Ray cluster runs on this machine; start one with `ray start --head`, or name --address HOST:PORT"
            )
        raise ClusterUnavailable(f"the Ray cluster {named!r} can't be used: {reason}") from error


def _require_listening(address: str) -> None:
    """Check that something listens at the address, for which Ray would wait for a minute."""
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or not port:
        raise ConfigInvalid(f"the address is {address!r}; it must be HOST:PORT or {AUTO}")
    try:
        socket.create_connection((host, port), _CONNECT_SECONDS).close()
    except OSError as error:
        raise ClusterUnavailable(
            f"no Ray cluster listens at {address}: {error.strerror or error}; start one with "
            "`ray start --head`, or check --address"
        ) from error


def worker_places(gpus_per_worker: float | None) -> list[Place]:
    """Return a place for each worker: one for each machine, or as many as its GPUs are enough for.

    Raises:
        ClusterUnavailable: the cluster has no CPU, or no GPU where one is asked for.
    """
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    has_gpus = any(node["Resources"].get("GPU", 0) for node in nodes)
    gpus = (1.0 if has_gpus else 0.0) if gpus_per_worker is None else gpus_per_worker
    places = [place for node in nodes for place in _places_of(node["NodeID"], node["NodeManagerAddress"], node, gpus)]
    if not places:
        what = f"no machine with a CPU and {gpus:g} GPUs" if gpus else "no CPU"
        raise ClusterUnavailable(f"the Ray cluster has {what}; its resources are {ray.cluster_resources()}")
    return places


def _places_of(node_id: str, host: str, node: dict[str, dict[str, float]], gpus: float) -> list[Place]:
    cpus = int(node["Resources"].get("CPU", 0))
    count = int(node["Resources"].get("GPU", 0) / gpus) if gpus else 1
    count = min(count, cpus)
    return [Place(node_id, host, cpus // count, gpus) for _ in range(count)]
