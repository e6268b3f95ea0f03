"""A real Prometheus, configured as in docker-compose.yml, evaluates the alerts and the queries of the dashboard."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.commands import free_port, serving

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIGURATION = REPOSITORY / "deploy/prometheus.yml"
ALERTS = REPOSITORY / "deploy/alerts.yml"
DASHBOARD = REPOSITORY / "deploy/grafana/dashboards/lookalike.json"

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed (Debian: apt-get install prometheus)"
)


@pytest.fixture(scope="module")
def service(sample_collection: Path) -> Iterator[str]:
    """The address of a service over the sample gallery."""
    with serving(sample_collection) as address:
        yield address


@pytest.fixture(scope="module")
def prometheus(service: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Prometheus that scrapes the service."""
    with _prometheus(service, tmp_path_factory.mktemp("prometheus")) as address:
        yield address


@needs_prometheus
def test_every_panel_of_the_dashboard_has_data(service: str, prometheus: str) -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    titles = {target["expr"]: panel["title"] for panel in panels for target in panel["targets"]}
    deadline = time.monotonic() + 60
    while missing := {title for query, title in titles.items() if not _series(prometheus, query)}:
        assert time.monotonic() < deadline, f"no data for {sorted(missing)}"
        _send_queries(service)


@needs_prometheus
def test_every_alert_is_evaluated_over_existing_metrics(service: str, prometheus: str) -> None:
    _send_queries(service)
    metrics = httpx.get(f"{service}/metrics", timeout=10).text
    eventually(lambda: {rule["health"] for rule in _alerts(prometheus)} == {"ok"})
    assert {rule["state"] for rule in _alerts(prometheus)} == {"inactive"}, _alerts(prometheus)
    for rule in _alerts(prometheus):
        for metric in re.findall(r"lookalike_[a-z_]+", rule["query"]):
            assert f"# TYPE {metric} " in metrics, rule["query"]
    assert len(ALERTS.read_text().split("- alert:")) - 1 == 7


_FIRST_500 = """
rule_files: [ALERTS]
tests:
  - interval: 15s
    input_series:
      - {series: 'lookalike_requests_total{instance="a",route="/v1/items",status="500"}', values: '_x8 1x60'}
      - {series: 'lookalike_requests_total{instance="b",route="/v1/items",status="200"}', values: '_x8 1x60'}
    alert_rule_test:
      - {eval_time: 1m, alertname: LookalikeFails, exp_alerts: []}
      - eval_time: 4m
        alertname: LookalikeFails
        exp_alerts:
          - {exp_labels: {instance: a}, exp_annotations: {summary: requests fail with status 500; see the log}}
      - {eval_time: 13m, alertname: LookalikeFails, exp_alerts: []}
"""


@needs_prometheus
def test_first_500_of_a_route_fires_an_alert(tmp_path: Path) -> None:
    cases = tmp_path / "cases.yml"
    cases.write_text(_FIRST_500.replace("ALERTS", str(ALERTS)))
    result = subprocess.run(["promtool", "test", "rules", str(cases)], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@needs_prometheus
def test_unreachable_service_fires_an_alert(tmp_path: Path) -> None:
    unused = f"http://127.0.0.1:{free_port()}"
    with _prometheus(unused, tmp_path) as address:
        eventually(lambda: "LookalikeDown" in {rule["name"] for rule in _alerts(address) if rule["state"] == "pending"})


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _alerts(address: str) -> list[dict[str, Any]]:
    groups = httpx.get(f"{address}/api/v1/rules", timeout=10).json()["data"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _send_queries(service: str) -> None:
    """Send a query by either route and one that fails, and leave Prometheus the time to scrape."""
    for route in ("/v1/search/text", "/v1/collections/collection/search/text"):
        assert httpx.post(service + route, json={"text": "a cat"}, timeout=30).status_code == 200
    assert httpx.post(f"{service}/v1/search/text", json={"text": ""}, timeout=30).status_code == 422
    time.sleep(0.5)


def _series(address: str, query: str) -> list[object]:
    """Return the series that have a value; a rate of nothing over nothing is NaN and is left out."""
    response = httpx.get(f"{address}/api/v1/query", params={"query": query}, timeout=10).json()
    assert response["status"] == "success", response
    return [series for series in response["data"]["result"] if series["value"][1] != "NaN"]


@contextmanager
def _prometheus(service: str, folder: Path) -> Iterator[str]:
    """Start a Prometheus that scrapes this service every second, in place of the compose network's."""
    text = CONFIGURATION.read_text().replace("lookalike-a:8001", service.removeprefix("http://"))
    text = text.replace(', "lookalike-b:8001"', "")
    own = folder / "prometheus.yml"
    text = text.replace("scrape_interval: 5s", "scrape_interval: 1s").replace("/etc/prometheus/alerts.yml", str(ALERTS))
    own.write_text("global: {evaluation_interval: 1s}\n" + text)
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus",
        f"--config.file={own}",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}",
    ]
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 30
        while not _ready(f"http://{address}"):
            assert process.poll() is None, (folder / "prometheus.log").read_text()
            assert time.monotonic() < deadline, "Prometheus did not start"
            time.sleep(0.1)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def _ready(address: str) -> bool:
    try:
        return httpx.get(f"{address}/-/ready", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
