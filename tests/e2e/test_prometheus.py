"""A real Prometheus with the configuration of docker-compose.yml, asked everything that the Grafana dashboard asks."""

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


@needs_prometheus
def test_every_panel_of_the_dashboard_has_something_to_show(sample_collection: Path, tmp_path: Path) -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = {target["expr"]: panel["title"] for panel in panels for target in panel["targets"]}
    with serving(sample_collection) as service, _prometheus(service, tmp_path) as address:
        deadline = time.monotonic() + 60
        while missing := {title for query, title in asked.items() if not _answer(address, query)}:
            assert time.monotonic() < deadline, f"nothing to show: {sorted(missing)}"
            _use(service)


@needs_prometheus
def test_every_alert_is_evaluated_over_metrics_that_there_are(sample_collection: Path, tmp_path: Path) -> None:
    with serving(sample_collection) as service, _prometheus(service, tmp_path) as address:
        _use(service)
        served = httpx.get(f"{service}/metrics", timeout=10).text
        eventually(lambda: {rule["health"] for rule in _alerts(address)} == {"ok"})
        assert {rule["state"] for rule in _alerts(address)} == {"inactive"}, _alerts(address)
        for rule in _alerts(address):
            for metric in re.findall(r"lookalike_[a-z_]+", rule["query"]):
                assert f"# TYPE {metric} " in served, rule["query"]
    assert len(ALERTS.read_text().split("- alert:")) - 1 == 8


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
          - {exp_labels: {instance: a}, exp_annotations: {summary: requests are answered 500; the log says why}}
      - {eval_time: 13m, alertname: LookalikeFails, exp_alerts: []}
"""


@needs_prometheus
def test_the_first_500_of_a_route_is_alarming(tmp_path: Path) -> None:
    cases = tmp_path / "cases.yml"
    cases.write_text(_FIRST_500.replace("ALERTS", str(ALERTS)))
    told = subprocess.run(["promtool", "test", "rules", str(cases)], capture_output=True, text=True)
    assert told.returncode == 0, told.stdout + told.stderr


@needs_prometheus
def test_a_service_that_is_gone_is_alarming(tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    with _prometheus(nowhere, tmp_path) as address:
        eventually(lambda: "LookalikeDown" in {rule["name"] for rule in _alerts(address) if rule["state"] == "pending"})


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _alerts(address: str) -> list[dict[str, Any]]:
    groups = httpx.get(f"{address}/api/v1/rules", timeout=10).json()["data"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _use(service: str) -> None:
    """A query by either route, one that fails, and time for Prometheus to look twice."""
    for route in ("/v1/search/text", "/v1/collections/collection/search/text"):
        assert httpx.post(service + route, json={"text": "a cat"}, timeout=30).status_code == 200
    assert httpx.post(f"{service}/v1/search/text", json={"text": ""}, timeout=30).status_code == 422
    time.sleep(0.5)


def _answer(address: str, query: str) -> list[object]:
    """The series that have a value now; a rate of nothing over nothing is NaN, and shows nothing."""
    answer = httpx.get(f"{address}/api/v1/query", params={"query": query}, timeout=10).json()
    assert answer["status"] == "success", answer
    return [series for series in answer["data"]["result"] if series["value"][1] != "NaN"]


@contextmanager
def _prometheus(service: str, folder: Path) -> Iterator[str]:
    """One that looks at the service every second, where the configuration has the service's name in its network."""
    text = CONFIGURATION.read_text().replace("lookalike:8001", service.removeprefix("http://"))
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
