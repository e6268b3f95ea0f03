"""The container image: every package of the project is copied in, and no copied file is ignored."""

from __future__ import annotations

import re
import tomllib
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import yaml

from app.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def copied() -> set[str]:
    """Names that the Dockerfile copies out of the build context."""
    lines = re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return {name for line in lines for name in line.split()[:-1]}


def test_copied_files_exist_and_are_not_ignored() -> None:
    ignore = (ROOT / ".dockerignore").read_text().split()
    for name in copied():
        assert (ROOT / name).exists(), name
        assert f"!{name}" in ignore, f"{name} is copied, but .dockerignore leaves it out"


def test_every_package_is_in_the_image() -> None:
    backend = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["uv"]["build-backend"]
    assert set(backend["module-name"]) <= copied()


def compose(name: str = "docker-compose.yml") -> dict[str, Any]:
    """A compose file with the default of each variable."""
    text = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", (ROOT / name).read_text())
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose()["services"]
    return found


def replica_addresses() -> dict[str, str]:
    return {
        name: service["networks"]["default"]["ipv4_address"]
        for name, service in services().items()
        if "serve" in service.get("command", []) and "--writable" not in service["command"]
    }


def test_compose_publishes_the_proxy_alone() -> None:
    published = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert published.pop("grafana")[0].startswith("127.0.0.1:")
    assert services()["writable"]["profiles"] == ["writable"]
    assert published == {"proxy": ["127.0.0.1:8000:8000"], "writable": ["127.0.0.1:8010:8000"]}


def test_only_the_writable_service_and_the_job_can_write_collections() -> None:
    mounts = {name: service.get("volumes", []) for name, service in services().items()}
    assert {name for name, each in mounts.items() if "collections:/collections" in each} == {"writable", "index"}
    assert services()["writable"]["environment"] == {"LOOKALIKE_KEYS": None}  # without keys it does not start


def test_compose_services_are_hardened() -> None:
    for name, service in services().items():
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "mem_limit" in service, name
        assert "pids_limit" in service, name
        if name.startswith("milvus"):  # runs as its makers publish it
            assert service["profiles"] == ["milvus"]
            continue
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert not service["user"].startswith("0"), name


def test_service_trusts_the_addresses_of_compose_networks() -> None:
    proxies = services()["lookalike-a"]["environment"]["LOOKALIKE_PROXIES"]
    networks = [ip_network(each) for each in Settings(proxies=proxies).proxies.split(",")]
    for address in ("172.17.0.3", "172.31.0.2", "192.168.16.2", "10.89.0.4", "fd00::2"):  # Docker's and podman's pools
        assert any(ip_address(address) in network for network in networks), address
    assert not any(ip_address("8.8.8.8") in network for network in networks)


def test_replicas_differ_in_their_address_only() -> None:
    first, second = (services()[name] for name in replica_addresses())
    own = ("networks", "mac_address", "build")
    assert {key: value for key, value in first.items() if key not in own} == {
        key: value for key, value in second.items() if key not in own
    }


def test_proxy_and_prometheus_know_each_replica() -> None:
    addresses = replica_addresses()
    assert len(set(addresses.values())) == 2
    assert services()["proxy"]["extra_hosts"] == [f"{name}:{address}" for name, address in addresses.items()]
    upstreams = re.findall(r"^ *server (\S+):8000 ", (ROOT / "deploy/nginx-compose.conf").read_text(), re.MULTILINE)
    assert upstreams == list(addresses)
    prometheus = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    (targets,) = prometheus["scrape_configs"][0]["static_configs"]
    assert targets["targets"] == [f"{name}:8001" for name in addresses]


def test_replica_addresses_are_fixed_and_reserved() -> None:
    (network,) = compose()["networks"]["default"]["ipam"]["config"]
    trusted = [ip_network(each) for each in services()["lookalike-a"]["environment"]["LOOKALIKE_PROXIES"].split(",")]
    for address in map(ip_address, replica_addresses().values()):
        assert address in ip_network(network["subnet"])
        assert address not in ip_network(network["ip_range"])
        assert any(address in each for each in trusted)


def test_gpu_is_for_all_but_the_proxy() -> None:
    overlay = compose("docker-compose.gpu.yml")["services"]
    assert set(overlay) == {*replica_addresses(), "writable", "index"}
    assert all(service["deploy"]["resources"]["reservations"]["devices"] for service in overlay.values())


def test_one_replica_has_both_names() -> None:
    text = (ROOT / "docker-compose.yml").read_text().replace("${REPLICAS:-2}", "1")
    hosts = yaml.safe_load(text)["services"]["proxy"]["extra_hosts"]
    assert [host.partition(":")[2] for host in hosts] == ["${NETWORK:-10.213.71}.11"] * 2


def test_replicas_have_time_to_drain() -> None:
    settings = Settings()
    for name in [*replica_addresses(), "writable"]:
        grace = int(services()[name]["stop_grace_period"].removesuffix("s"))
        assert grace > settings.drain_seconds + settings.shutdown_seconds + 2, name  # the process's own margin


def test_nginx_bounds_match_the_defaults_of_the_service() -> None:
    common = (ROOT / "deploy/nginx-common.conf").read_text()
    settings = Settings()

    def value(directive: str, text: str = common) -> int:
        return int(re.findall(rf"^ *{directive} (\d+)[ms];", text, re.MULTILINE)[0])

    assert value("client_max_body_size") * 1024 * 1024 == settings.max_body_bytes
    assert value("proxy_read_timeout") > settings.deadline + settings.max_wait
    for name in ("nginx.conf", "nginx-compose.conf"):
        text = (ROOT / "deploy" / name).read_text()
        assert value("keepalive_timeout", text) < settings.keep_alive, name
        assert value("proxy_read_timeout", text) > settings.open_timeout, name  # of reloads
