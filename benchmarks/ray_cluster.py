"""A Ray cluster of two machines on loopback, for tests and the benchmark."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

from ray.cluster_utils import Cluster

HOSTS = ("127.0.0.2", "127.0.0.3")
"""Not 127.0.0.1, which Ray replaces by the address of the machine's network."""
REPOSITORY = Path(__file__).resolve().parent.parent
_STORE_BYTES = 200 << 20


@contextmanager
def two_machines() -> Iterator[str]:
    """Start two machines of one CPU each; yield the cluster's address."""
    settings = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(REPOSITORY)}
    with patch.dict(os.environ, settings):
        cluster = Cluster()
        try:
            for host in HOSTS:
                options = {"include_dashboard": False} if host == HOSTS[0] else {}
                cluster.add_node(num_cpus=1, node_ip_address=host, object_store_memory=_STORE_BYTES, **options)
            cluster.wait_for_nodes()
            yield cluster.address
        finally:
            cluster.shutdown()
