"""The manifests in `deploy/kubernetes`: valid for Kubernetes, and consistent with the service and with each other."""

from __future__ import annotations

import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer.main
import yaml

from app.api.health import PATHS
from app.settings import PREFIX, Settings
from cli.main import app

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy/kubernetes"
KINDS = {
    *("CronJob", "Deployment", "HorizontalPodAutoscaler", "Job", "NetworkPolicy"),
    *("PersistentVolumeClaim", "PodDisruptionBudget", "Service"),
}
OLDEST, NEWEST = "1.29", kubernetes_validate.latest_version()

Document = dict[str, Any]


def documents() -> list[Document]:
    """All of the folder, as `kubectl apply -f` reads it."""
    texts = [path.read_text() for path in sorted(FOLDER.glob("*.yaml"))]
    return [document for text in texts for document in yaml.safe_load_all(text)]


def the(kind: str) -> Document:
    (found,) = (document for document in documents() if document["kind"] == kind)
    return found


def pods() -> dict[str, Document]:
    """The specification of the pods of each kind that starts some."""
    return {
        "Deployment": the("Deployment")["spec"]["template"]["spec"],
        "Job": the("Job")["spec"]["template"]["spec"],
        "CronJob": the("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"],
    }


def containers(pod: Document) -> list[Document]:
    return [*pod["initContainers"], *pod["containers"]]


def service_container() -> Document:
    (container,) = pods()["Deployment"]["containers"]
    return dict(container)


def environment() -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in service_container()["env"]}


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_manifests_are_valid(version: str) -> None:
    assert {document["kind"] for document in documents()} == KINDS
    for document in documents():
        kubernetes_validate.validate(document, version, strict=True)


def test_validation_refuses_unknown_fields() -> None:
    document = deepcopy(the("Deployment"))
    document["spec"]["template"]["spec"]["containers"][0]["ressources"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="ressources"):
        kubernetes_validate.validate(document, NEWEST, strict=True)


def test_names_differ_within_a_kind() -> None:
    names = [(document["kind"], document["metadata"]["name"]) for document in documents()]
    assert len(set(names)) == len(names)


def test_variables_are_valid_settings() -> None:
    fields = {name.removeprefix(PREFIX).lower(): value for name, value in environment().items()}
    assert set(fields) <= set(Settings.model_fields)
    Settings.model_validate(fields)


def test_ports_are_those_of_the_image() -> None:
    ports = {port["name"]: port["containerPort"] for port in service_container()["ports"]}
    exposed = re.findall(r"^EXPOSE (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[-1].split()
    assert ports == {"http": int(exposed[0]), "health": int(exposed[1])}
    arguments = service_container()["args"]
    assert int(arguments[arguments.index("--port") + 1]) == ports["http"]
    assert int(environment()["LOOKALIKE_HEALTH_PORT"]) == ports["health"]
    (port,) = the("Service")["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (ports["http"], "http")
    allowed = [rule["port"] for each in the("NetworkPolicy")["spec"]["ingress"] for rule in each["ports"]]
    assert allowed == ["http", "health"]


def test_probes_use_the_health_port() -> None:
    for name in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert service_container()[name]["httpGet"] == {"path": "/readyz", "port": "health"}, name
    assert "/readyz" in PATHS


def seconds_until_failure(name: str) -> int:
    probe = service_container()[name]
    return int(probe["periodSeconds"]) * int(probe["failureThreshold"])


def test_probes_fit_the_service() -> None:
    settings = Settings()
    assert seconds_until_failure("startupProbe") > settings.open_timeout
    assert seconds_until_failure("livenessProbe") == 60  # docs/guides/operate.md
    assert seconds_until_failure("readinessProbe") < float(environment()["LOOKALIKE_DRAIN_SECONDS"])


def test_grace_period_covers_draining() -> None:
    times = [float(environment()[f"LOOKALIKE_{name}_SECONDS"]) for name in ("DRAIN", "SHUTDOWN")]
    assert pods()["Deployment"]["terminationGracePeriodSeconds"] > sum(times) + 2  # the process's own margin


def test_updates_keep_all_replicas() -> None:
    deployment = the("Deployment")["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert deployment["replicas"] == the("HorizontalPodAutoscaler")["spec"]["minReplicas"] == 2
    assert the("PodDisruptionBudget")["spec"]["maxUnavailable"] < deployment["replicas"]
    assert the("CronJob")["spec"]["concurrencyPolicy"] == "Forbid"


@pytest.mark.parametrize("kind", ["Deployment", "Job", "CronJob"])
def test_pods_are_hardened(kind: str) -> None:
    pod, (user,) = pods()[kind], re.findall(r"--uid (\d+)", (ROOT / "Dockerfile").read_text())
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert (security["runAsUser"], security["seccompProfile"]) == (int(user), {"type": "RuntimeDefault"})
    assert pod["automountServiceAccountToken"] is False
    for container in containers(pod):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"], container["name"]
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}, container["name"]


@pytest.mark.parametrize("kind", ["Deployment", "Job", "CronJob"])
def test_cluster_sets_no_variables_of_the_settings(kind: str) -> None:
    assert the("Service")["metadata"]["name"].upper() + "_" == PREFIX  # hence LOOKALIKE_PORT and others
    assert pods()[kind]["enableServiceLinks"] is False


@pytest.mark.parametrize("kind", ["Deployment", "Job", "CronJob"])
def test_mounts_and_claims_exist(kind: str) -> None:
    pod = pods()[kind]
    claims = {each["metadata"]["name"] for each in documents() if each["kind"] == "PersistentVolumeClaim"}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounted = {mount["name"] for container in containers(pod) for mount in container["volumeMounts"]}
    assert mounted == set(volumes)
    used = {volume["persistentVolumeClaim"]["claimName"] for volume in volumes.values() if _is_claim(volume)}
    assert used <= claims
    assert used


def _is_claim(volume: Document) -> bool:
    return "persistentVolumeClaim" in volume


def test_only_the_jobs_write_collections() -> None:
    read_only = {
        kind: mount.get("readOnly", False)
        for kind, pod in pods().items()
        for mount in pod["containers"][0]["volumeMounts"]
        if mount["name"] == "collections"
    }
    assert read_only == {"Deployment": True, "Job": False, "CronJob": False}


@pytest.mark.parametrize("kind", ["Deployment", "Job", "CronJob"])
def test_commands_exist(kind: str) -> None:
    """The command line parses, and its paths are mounts."""
    container = pods()[kind]["containers"][0]
    name, *arguments = container["args"]
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    command.make_context(name, list(arguments))
    mounts = tuple(mount["mountPath"] for mount in container["volumeMounts"])
    paths = [argument for argument in arguments if argument.startswith("/")]
    assert paths
    assert all(path.startswith(mounts) for path in paths)


def test_jobs_differ_in_their_schedule_only() -> None:
    assert pods()["Job"] == pods()["CronJob"]
    served, indexed = service_container()["args"], pods()["Job"]["containers"][0]["args"]
    assert served[1] == indexed[indexed.index("--out") + 1]


def test_cache_starts_with_the_files_of_the_image() -> None:
    (folder,) = set(re.findall(r"LOOKALIKE_CACHE=(\S+)", (ROOT / "Dockerfile").read_text()))
    for kind, pod in pods().items():
        (init,) = pod["initContainers"]
        assert init["command"] == ["cp", "-r", f"{folder}/.", init["volumeMounts"][0]["mountPath"]], kind
        assert {"name": "cache", "mountPath": folder} in pod["containers"][0]["volumeMounts"], kind
        assert {container["image"] for container in containers(pod)} == {"lookalike:latest"}, kind


def selectors() -> Iterator[tuple[str, dict[str, str]]]:
    """Each selector of the service's pods, and whose it is."""
    yield "Deployment", the("Deployment")["spec"]["selector"]["matchLabels"]
    spread = pods()["Deployment"]["topologySpreadConstraints"]
    yield "topologySpreadConstraints", spread[0]["labelSelector"]["matchLabels"]
    yield "Service", the("Service")["spec"]["selector"]
    yield "PodDisruptionBudget", the("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]
    yield "NetworkPolicy", the("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]


def test_selectors_match_replicas_and_no_job() -> None:
    labels = the("Deployment")["spec"]["template"]["metadata"]["labels"]
    job = the("Job")["spec"]["template"]["metadata"]["labels"]
    scheduled = the("CronJob")["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"]
    for name, selector in selectors():
        assert selector.items() <= labels.items(), name
        assert not selector.items() <= job.items(), name
        assert not selector.items() <= scheduled.items(), name


def test_autoscaler_uses_an_existing_metric() -> None:
    spec = the("HorizontalPodAutoscaler")["spec"]
    target = the("Deployment")
    assert spec["scaleTargetRef"] == {
        "apiVersion": target["apiVersion"],
        "kind": target["kind"],
        "name": target["metadata"]["name"],
    }
    (metric,) = spec["metrics"]
    name = metric["pods"]["metric"]["name"]
    assert f"| `{name}` | gauge |" in (ROOT / "docs/reference/metrics.md").read_text()
    milliseconds = int(metric["pods"]["target"]["averageValue"].removesuffix("m"))
    assert 0 < milliseconds / 1000 < Settings().max_wait


def test_adapter_rule_provides_the_metric_by_pod() -> None:
    """The rule stands in a comment, because it belongs to another program's configuration."""
    comment = re.findall(r"^#(.*)$", (FOLDER / "autoscaler.yaml").read_text(), re.MULTILINE)
    start = next(number for number, line in enumerate(comment) if line.strip() == "rules:")
    (rule,) = yaml.safe_load("\n".join(comment[start : start + 4]))["rules"]
    metric = the("HorizontalPodAutoscaler")["spec"]["metrics"][0]["pods"]["metric"]["name"]
    assert rule["seriesQuery"].partition("{")[0] == metric
    assert set(rule["resources"]["overrides"]) == {"namespace", "pod"}
