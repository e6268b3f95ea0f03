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


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return found


def test_compose_publishes_the_proxy_alone() -> None:
    published = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert published.pop("grafana")[0].startswith("127.0.0.1:")
    assert published == {"proxy": ["${ADDRESS:-127.0.0.1}:${PORT:-8000}:8000"]}


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
    proxies = services()["lookalike"]["environment"]["LOOKALIKE_PROXIES"]
    networks = [ip_network(each) for each in Settings(proxies=proxies).proxies.split(",")]
    for address in ("172.17.0.3", "172.31.0.2", "192.168.16.2", "10.89.0.4", "fd00::2"):  # Docker's and podman's pools
        assert any(ip_address(address) in network for network in networks), address
    assert not any(ip_address("8.8.8.8") in network for network in networks)


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
