"""The Milvus store on a real server: the contract of stores, congruence with exact search, and an outage."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings

import lookalike.row_search as row_search
from lookalike.collection import current_manifest
from lookalike.errors import StoreUnavailable
from lookalike.stores.milvus.client import alias_target, connect
from tests.contract.milvus import (
    FILTERS,
    SEARCHES,
    Pair,
    alias,
    assert_congruent,
    assert_expression_selects,
    import_into,
    write_embeddings,
)
from tests.contract.test_stores import (  # noqa: F401  # collected here, with the fixture `built` of this module
    Built,
    Case,
    make,
    test_defaults_find_most_true_neighbors,
    test_empty_mask_returns_nothing,
    test_equal_vectors_come_in_row_order,
    test_exhaustive_search_equals_naive_search,
    test_mask_is_respected,
    test_narrow_mask_returns_all_allowed_rows,
    test_other_widths_are_rejected,
    test_parameters_travel_with_the_call,
    test_result_shape,
    test_single_queries_equal_the_batch,
    test_store_attributes,
)

ROOT = Path(__file__).parents[2]
COMMAND = ROOT / ".milvus" / "bin" / "milvus-server"
PORTS = ("etcd", "root-coord", "proxy", "proxy-internal", "query-coord", "query-node", "index-coord", "index-node",
         "data-coord", "data-node")  # fmt: skip
CASES = [
    Case("milvus-exact", 700, 33),
    Case("milvus-ivf-flat", 1_500, 16),
    Case("milvus-ivf-sq8", 1_500, 33),
    Case("milvus-ivf-pq4", 4_000, 64),
]

if not COMMAND.exists():
    pytest.skip("the Milvus server is not installed; `make test-milvus` installs it", allow_module_level=True)


class Server:
    """A Milvus server in processes of its own."""

    def __init__(self, folder: Path) -> None:
        with ExitStack() as stack:
            sockets = [stack.enter_context(closing(socket.create_server(("127.0.0.1", 0)))) for _ in PORTS]
            ports = dict(zip(PORTS, (each.getsockname()[1] for each in sockets), strict=True))
        options = [text for name, port in ports.items() for text in (f"--{name}-port", str(port))]
        self._log = (folder / "server.log").open("wb")
        self._process = subprocess.Popen(
            [COMMAND, "--data", folder, *options], stdout=self._log, stderr=self._log, start_new_session=True
        )
        self.uri = f"http://127.0.0.1:{ports['proxy']}"
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def _wait(self) -> None:
        deadline = time.monotonic() + 90
        port = int(self.uri.rpartition(":")[2])
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                connect(self.uri).list_collections()
                return
            except Exception:  # until all of its parts have started, calls fail in many ways
                connect.cache_clear()
                time.sleep(1)
        raise AssertionError(f"Milvus did not start: {self._log.name}")

    def signal(self, number: int) -> None:
        """Send a signal to all of its processes."""
        os.killpg(self._process.pid, number)

    def stop(self) -> None:
        """End it."""
        self.signal(signal.SIGKILL)  # its data is temporary, and it takes half a minute to end by SIGTERM
        self._process.wait()
        self._log.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    started = Server(tmp_path_factory.mktemp("milvus"))
    yield started
    started.stop()


@pytest.fixture(scope="module", params=CASES, ids=str)
def built(request: pytest.FixtureRequest, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return make(request.param, tmp_path_factory.mktemp("store"), server.uri)


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("embeddings") / "vectors"
    write_embeddings(folder)
    return folder


@pytest.fixture(scope="module")
def pair(embeddings: Path, server: Server, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pair")
    import_into(embeddings, folder / "exact", "exact")
    import_into(embeddings, folder / "milvus", f"milvus:{server.uri}/{alias()}")
    return Pair(folder / "exact", folder / "milvus")


@pytest.mark.parametrize("options", SEARCHES, ids=str)
def test_search_equals_exact_search(pair: Pair, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_search, "_MAX_SCANNED_ROWS", 0)  # few rows would be scanned here
    monkeypatch.setattr(row_search, "_MAX_SCANNED_FRACTION", 0)
    assert_congruent(pair, options)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(document=FILTERS)
def test_expression_selects_the_same_rows(pair: Pair, document: dict[str, Any]) -> None:
    assert_expression_selects(pair.milvus, document)


def test_unknown_index_of_an_older_server_is_reported(server: Server, tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="invalid index type: IVF_RABITQ"):
        make(Case("milvus-ivf-rabitq", 1_500, 16), tmp_path, server.uri)


def test_service_follows_versions_and_outages(embeddings: Path, server: Server, tmp_path: Path) -> None:
    """A new version swaps in. While Milvus does not answer, queries get 503, and readiness says why."""
    out, name = tmp_path / "out", alias()
    store = f"milvus:{server.uri}/{name}"
    import_into(embeddings, out, store)
    with ExitStack() as stack:
        url = _serve(stack, out, tmp_path / "serve.log")
        first = _wait_for(lambda: _ready(url))["version"]
        import_into(embeddings, out, store)
        params = current_manifest(out).store.params
        assert alias_target(connect(server.uri), name) == params["collection"]
        _wait_for(lambda: _search(url).status_code == 200 and _search(url).json()["version"] != first)
        server.signal(signal.SIGSTOP)
        try:
            refused = _search(url)
            assert refused.status_code == 503, refused.text
            assert refused.json()["code"] == "store_unreachable"
            assert "Retry-After" in refused.headers
            _wait_for(lambda: "Milvus" in httpx.get(f"{url}/readyz", timeout=30).text)
            late = _serve(stack, out, tmp_path / "late.log")  # begins while Milvus is away
            assert httpx.get(f"{late}/readyz", timeout=30).status_code == 503
        finally:
            server.signal(signal.SIGCONT)
        _wait_for(lambda: _search(url).status_code == 200)
        _wait_for(lambda: _ready(url))
        _wait_for(lambda: _ready(late))


def _serve(stack: ExitStack, collection: Path, log: Path) -> str:
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "LOOKALIKE_MILVUS_TIMEOUT": "2",
        "LOOKALIKE_WATCH_SECONDS": "0.5",
        "LOOKALIKE_PROBE_SECONDS": "0.5",
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "serve", str(collection), "--port", str(port)],
        env=environment,
        stderr=stack.enter_context(log.open("wb")),
        cwd=ROOT,
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    url = f"http://127.0.0.1:{port}"
    _wait_for(lambda: httpx.get(f"{url}/livez", timeout=30).status_code == 200)
    return url


def _ready(url: str) -> Any:
    response = httpx.get(f"{url}/readyz", timeout=30)
    return response.json() if response.status_code == 200 else None


def _search(url: str) -> httpx.Response:
    return httpx.post(f"{url}/v1/search/text", json={"text": "red", "limit": 2}, timeout=30)


def _wait_for(condition: Any, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if found := condition():
                return found
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.3)
