"""Settings of the service, each with its default, unit and help text.

A setting is read from the environment variable LOOKALIKE_<NAME> or set by `lookalike serve`. A test checks that
`docs/reference/settings.md` lists all of them.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from lookalike.images import DEFAULT_MAX_PIXELS
from lookalike.search import Limits

MIB = 1024 * 1024
PREFIX = "LOOKALIKE_"
_ORIGIN_PATTERN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#]+")


class Settings(BaseSettings):
    """The service's settings; constructor arguments override the environment, which overrides the defaults."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, allow_inf_nan=False, env_ignore_empty=True)

    collection: Path = Field(default=Path("collection"), description="Folder of the default collection.")
    collections: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        description="Folders of further collections, separated by colons. Each is served under its folder's name, "
        "at `/v1/collections/{name}/...`. A folder that is not a collection stands for all collections "
        "in it, including those added later.",
    )
    preload: bool = Field(
        default=True,
        description="Whether further collections are opened at start; otherwise each is opened on its first request.",
    )
    memory_budget: int = Field(
        default=0,
        ge=0,
        description="Maximum bytes of open collections and their encoders, counted by the size of files and "
        "weights. Beyond it, the least recently used collection is closed, but never the default one. 0 "
        "for no limit.",
    )
    encoder: str | None = Field(
        default=None,
        description="Encoder of the default collection, for weights that have moved; by default the one that the "
        "collection's manifest names. An encoder that differs from the collection's is refused.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where the encoder runs; `auto` uses CUDA if it is available."
    )
    engine: Literal["auto", "torch", "openvino"] = Field(
        default="auto", description="What runs the encoder; `auto` uses OpenVINO on a CPU and torch on CUDA."
    )
    store_device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="Where vectors are searched. `cpu` uses the collection's store, `cuda` searches exactly on the "
        "GPU. `auto` uses the GPU if it is available, its memory holds the vectors, and the store is "
        "`exact` or was chosen by `auto`; it never does with `LOOKALIKE_DEVICE=cpu`.",
    )
    verify: bool = Field(
        default=True,
        description="Whether the collection's checksums are verified at start, which takes about a second per "
        "gigabyte.",
    )
    max_body_bytes: int = Field(
        default=32 * MIB, ge=1024, description="Maximum size of a request body, bytes; beyond it, 413."
    )
    max_pixels: int = Field(
        default=DEFAULT_MAX_PIXELS,
        ge=1,
        description="Maximum size of an image, width x height in pixels; beyond it, 422.",
    )
    max_results: int = Field(default=1_000, ge=1, description="Maximum `limit` of a search, items.")
    max_candidates: int = Field(
        default=10_000, ge=1, description="Maximum number of rows that a search re-ranks (`params.candidates`)."
    )
    max_wait: float = Field(
        default=1.0,
        gt=0,
        description="Maximum expected wait of a query, seconds; beyond it, the query is rejected with 503.",
    )
    deadline: float = Field(
        default=10.0,
        gt=0,
        description="Maximum time from the end of a query's body to its response, seconds; beyond it, 503.",
    )
    body_timeout: float = Field(
        default=30.0, gt=0, description="Maximum time for a request body to arrive, seconds; beyond it, 408."
    )
    rate_limit: str = Field(
        default="",
        description="Maximum rate of queries per key, or per client address if there are no keys: `20/second`, "
        "`600/minute`; beyond it, 429. Empty for no limit.",
    )
    keys: SecretStr = Field(
        default=SecretStr(""),
        description="API keys, `read:KEY` or `admin:KEY`, separated by spaces or commas. Without any key, requests "
        "need no authentication.",
    )
    keys_file: Path | None = Field(
        default=None, description="Key file that `lookalike key` writes; it contains only SHA-256 digests."
    )
    anonymous: bool = Field(
        default=False,
        description="Whether to serve without keys on an address that other machines can reach, which is refused by "
        "default.",
    )
    hosts: str = Field(
        default="",
        description="Host names that a service without keys accepts, separated by spaces or commas, `*` for any. "
        "Addresses, names without a dot and reserved names (`.localhost`, `.local`, `.internal`) are "
        "always accepted.",
    )
    proxies: str = Field(
        default="",
        description="Addresses and networks of reverse proxies, separated by spaces or commas, whose "
        "`X-Forwarded-For` and `X-Forwarded-Proto` are trusted: `127.0.0.1,10.1.0.0/16`. Empty for "
        "none.",
    )
    health_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Additional port of `lookalike serve` for `/livez`, `/readyz` and `/metrics` only, which "
        "responds even while hundreds of connections wait on the main port. 0 for none.",
    )
    max_connections: int | None = Field(
        default=None, ge=1, description="Deprecated, without effect: a reverse proxy bounds connections."
    )
    keep_alive: int = Field(
        default=75,
        ge=1,
        description="Seconds that an idle connection is kept open. Must be longer than the keep-alive timeout of "
        "the proxy in front (60 for nginx and most load balancers), or the proxy may send a request on "
        "a connection that is being closed.",
    )
    cors_origins: str = Field(
        default="",
        description="Origins whose pages may send requests from a browser, separated by spaces or commas: "
        "`https://shop.example`, or `*` for all. Empty for the service's own page only.",
    )
    urls: bool = Field(
        default=False, description="Whether requests may give images as URLs, which the service fetches."
    )
    urls_allowed: str = Field(
        default="",
        description="Host names, addresses and networks, separated by spaces or commas, from which images are "
        "fetched although they are not on the public internet: `images.internal 10.1.0.0/16`.",
    )
    url_timeout: float = Field(
        default=5.0, gt=0, description="Maximum time for fetching an image by URL, seconds; beyond it, 422."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="Format of the log on stderr; `json` for one object per line."
    )
    access_log: bool = Field(default=False, description="Whether every request is logged.")
    tracing: bool = Field(
        default=False,
        description="Whether traces are exported by OpenTelemetry (`pip install '.[tracing]'`), which is configured "
        "by its `OTEL_*` variables.",
    )
    watch_seconds: float = Field(
        default=2.0,
        ge=0,
        description="Interval of checks for new versions, new collections and a changed key file, seconds; 0 for "
        "never: then a collection that could not be opened is opened again only by a reload.",
    )
    probe_seconds: float = Field(
        default=5.0, gt=0, description="Interval of the probe queries behind /readyz, seconds."
    )
    probe_timeout: float = Field(
        default=10.0, gt=0, description="Seconds after which a probe, or a batch of the encoder, counts as stuck."
    )
    open_timeout: float = Field(
        default=120.0, gt=0, description="Maximum time for the first queries to a newly opened version, seconds."
    )
    drain_seconds: float = Field(
        default=1.0,
        ge=0,
        description="Seconds after SIGTERM in which requests are still accepted while /readyz responds with 503.",
    )
    shutdown_seconds: int = Field(
        default=10, ge=1, description="Maximum time for requests in flight to finish during shutdown, seconds."
    )
    max_text: int = Field(default=1_000, ge=1, description="Maximum length of a text query, characters.")
    worker_threads: int = Field(
        default=max(2, min(8, os.cpu_count() or 2)),
        ge=1,
        description="Number of threads that decode images, of threads that search, and of threads that read items "
        "and thumbnails; two more run the encoder. By default one per core, 2 to 8.",
    )
    thumbnail_max_age: int = Field(default=3_600, ge=0, description="Seconds that a browser may cache a thumbnail.")

    @field_validator("collections", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, value.split(os.pathsep))) if isinstance(value, str) else value

    @field_validator("proxies")
    @classmethod
    def _addresses(cls, value: str) -> str:
        for entry in split_list(value):
            if entry != "*":
                ip_network(entry, strict=False)  # its message names the entry
        return ",".join(split_list(value))

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        for entry in split_list(value):
            if entry != "*" and not _ORIGIN_PATTERN.fullmatch(entry):
                raise ValueError(f"{entry!r} is not an origin; write it like https://shop.example, without a path")
        return value

    def limits(self) -> Limits:
        """Return the limits of a single query."""
        return Limits(
            results=self.max_results, candidates=self.max_candidates, text=self.max_text, pixels=self.max_pixels
        )


def split_list(text: str) -> list[str]:
    """Return the entries of a list that is separated by white space or commas."""
    return text.replace(",", " ").split()


def misspelled_variables(environment: Iterable[str]) -> dict[str, str]:
    """Return variables that are not settings but resemble one, mapped to that setting's variable."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    unknown = [name for name in environment if name.startswith(PREFIX) and name not in known]
    matches = {name: difflib.get_close_matches(name, known, 1, cutoff=0.9) for name in unknown}
    return {name: similar[0] for name, similar in matches.items() if similar}
