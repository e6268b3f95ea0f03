"""Settings of the service, each with its default, unit and help text.

A setting is read from the environment variable LOOKALIKE_<NAME> or set by `lookalike serve`. `make reference` writes
docs/reference/settings.md from this file.
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
from pydantic.config import JsonDict
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from lookalike.images import DEFAULT_MAX_PIXELS
from lookalike.search import Limits

MIB = 1024 * 1024
PREFIX = "LOOKALIKE_"
_SECONDS: JsonDict = {"unit": "seconds"}
_BYTES: JsonDict = {"unit": "bytes"}
_ORIGIN_PATTERN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#]+")
_ROOT_PATH_PATTERN = re.compile(r"(/(?!\.{1,2}(/|\Z))[A-Za-z0-9._~@-]+)+")
MAX_ROOT_PATH_CHARS = 200
OWN_PATHS = frozenset({"v1", "docs", "static", "openapi.json", "livez", "readyz", "metrics"})
"""First segments of the service's own paths: with such a root path, a path would have two meanings."""


class Settings(BaseSettings):
    """The service's settings; constructor arguments override the environment, which overrides the defaults.

    A comment line begins a section of docs/reference/settings.md.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, allow_inf_nan=False, env_ignore_empty=True)

    # Collections

    collection: Path = Field(default=Path("collection"), description="Folder of the default collection.")
    collections: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        description="Folders of further collections, separated by colons. Each is served under its folder's name, "
        "at `/v1/collections/{name}/...`. A folder that is not a collection stands for all collections in it, "
        "including those added later.",
    )
    preload: bool = Field(
        default=True,
        description="Whether further collections are opened at start. With `false`, each is opened on its first "
        "request.",
    )
    memory_budget: int = Field(
        default=0,
        ge=0,
        description="Maximum size of the open collections and their encoders, counted by files and weights; 0 for no "
        "limit. Beyond it, the least recently used collection is closed, but never the default one.",
        json_schema_extra=_BYTES,
    )
    verify: bool = Field(
        default=True,
        description="Whether the checksums of a collection are verified when it is opened. This takes about a second "
        "per gigabyte.",
    )
    watch_seconds: float = Field(
        default=2.0,
        ge=0,
        description="Interval of checks for new versions, new collections and a changed key file; 0 for never. Without "
        "checks, only a reload opens a collection that could not be opened.",
        json_schema_extra=_SECONDS,
    )
    open_timeout: float = Field(
        default=120.0,
        gt=0,
        description="Maximum time for the first queries to a newly opened version. Beyond it, the version is refused.",
        json_schema_extra=_SECONDS,
    )

    # Writes

    writable: bool = Field(
        default=False,
        description="Whether items may be added, changed and deleted over HTTP. The service must then have keys, or "
        "listen on loopback only. It holds a lock: a collection has one writable service. Otherwise: `read_only`.",
    )
    max_pending: int = Field(
        default=50_000,
        ge=1,
        description="Maximum number of written items in memory, until a compaction builds them into the next version. "
        "An item takes about 12 KB. Beyond it: `pending_full`.",
        json_schema_extra={"unit": "items"},
    )
    compact_items: int = Field(
        default=10_000,
        ge=0,
        description="Number of written items from which the service starts a compaction by itself; 0 for never.",
        json_schema_extra={"unit": "items"},
    )
    compact_seconds: float = Field(
        default=3_600.0,
        ge=0,
        description="Age of the oldest write from which the service starts a compaction by itself; 0 for never.",
        json_schema_extra=_SECONDS,
    )

    # Encoder and device

    encoder: str | None = Field(
        default=None,
        description="Encoder of the default collection, for weights that have moved. By default it is the one that the "
        "collection's manifest names. Another encoder than the collection's is refused: `encoder_mismatch`.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Device of the encoder. `auto` uses CUDA if it is available."
    )
    engine: Literal["auto", "torch", "openvino"] = Field(
        default="auto", description="Runtime of the encoder. `auto` uses OpenVINO on a CPU and torch on CUDA."
    )
    store_device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="Device of the search. `cpu` uses the collection's store, and `cuda` searches exactly on the GPU. "
        "`auto` uses the GPU if it is available and its memory holds the vectors. The store must then be `exact` or "
        "chosen by `auto`, and `LOOKALIKE_DEVICE` must not be `cpu`.",
    )
    worker_threads: int = Field(
        default=max(2, min(8, os.cpu_count() or 2)),
        ge=1,
        description="Number of threads for each of three tasks: decoding images, searching, and reading items and "
        "thumbnails. Two more threads run the encoder.",
        json_schema_extra={"default": "one per core, 2 to 8"},
    )

    # Limits

    max_body_bytes: int = Field(
        default=32 * MIB,
        ge=1024,
        description="Maximum size of a request body, and of an image that is fetched by URL. Beyond it: "
        "`body_too_large`, `url_failed`.",
        json_schema_extra=_BYTES,
    )
    max_pixels: int = Field(
        default=DEFAULT_MAX_PIXELS,
        ge=1,
        description="Maximum size of an image as it is decoded, width x height. Beyond it: `image_too_large`.",
        json_schema_extra={"unit": "pixels"},
    )
    max_text: int = Field(
        default=1_000,
        ge=1,
        description="Maximum length of a text query. Beyond it: `text_too_long`.",
        json_schema_extra={"unit": "characters"},
    )
    max_results: int = Field(
        default=1_000,
        ge=1,
        description="Maximum `limit` of a search and of a list of items. Beyond it: `invalid_limit`.",
        json_schema_extra={"unit": "items"},
    )
    max_candidates: int = Field(
        default=10_000,
        ge=1,
        description="Maximum number of rows that a search re-ranks: `candidates` and `efSearch` in `params`. Also the "
        "maximum of `offset` and `limit` together. Beyond it: `query_invalid`.",
        json_schema_extra={"unit": "rows"},
    )
    body_timeout: float = Field(
        default=30.0,
        gt=0,
        description="Maximum time for a request body to arrive. Beyond it: `body_too_slow`.",
        json_schema_extra=_SECONDS,
    )

    # Overload

    max_wait: float = Field(
        default=1.0,
        gt=0,
        description="Maximum expected wait of a query. A query that would wait longer is rejected: `overloaded`.",
        json_schema_extra=_SECONDS,
    )
    deadline: float = Field(
        default=10.0,
        gt=0,
        description="Maximum time from the end of a request's body to its response. Beyond it: `deadline_exceeded`.",
        json_schema_extra=_SECONDS,
    )
    rate_limit: str = Field(
        default="",
        description="Maximum rate of searches and pairs per key, such as `20/second` or `600/minute`. Without keys, it "
        "is the rate per client address. Beyond it: `rate_limited`.",
    )

    # Access and keys

    keys_file: Path | None = Field(
        default=None, description="Key file that `lookalike key` writes. It contains only SHA-256 digests of the keys."
    )
    keys: SecretStr = Field(
        default=SecretStr(""),
        description="API keys as `read:KEY`, `write:KEY` or `admin:KEY`, separated by spaces or commas. Without any "
        "key, here or in the key file, requests need no authentication.",
    )
    anonymous: bool = Field(
        default=False,
        description="Whether a service without keys may listen on an address that other machines can reach. Everyone "
        "then has the role `read`.",
    )
    hosts: str = Field(
        default="",
        description="Host names that a service without keys accepts, separated by spaces or commas; `*` for any. "
        "Addresses, names without a dot and private names are always accepted: `.localhost`, `.local`, `.internal`, "
        "`.lan`, `.svc`, `.test`, `.home.arpa`.",
    )
    cors_origins: str = Field(
        default="",
        description="Origins whose pages may send requests from a browser, separated by spaces or commas: "
        "`https://shop.example`, or `*` for all. By default only the service's own page may.",
    )

    # Network and proxies

    proxies: str = Field(
        default="",
        description="Addresses and networks of reverse proxies, separated by spaces or commas: "
        "`127.0.0.1,10.1.0.0/16`; `*` for any. Their `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Prefix` "
        "are trusted.",
    )
    root_path: str = Field(
        default="",
        description="Path under which a reverse proxy publishes the service, such as `/lookalike`. Requests may arrive "
        "with it or without it. `X-Forwarded-Prefix` of a trusted proxy overrides it.",
    )
    keep_alive: int = Field(
        default=75,
        ge=1,
        description="Time that an idle connection is kept open. It must be longer than the keep-alive timeout of the "
        "proxy in front: 60 seconds for nginx and most load balancers. Otherwise the proxy may send a request on a "
        "connection that is being closed.",
        json_schema_extra=_SECONDS,
    )
    thumbnail_max_age: int = Field(
        default=3_600,
        ge=0,
        description="Time that a browser may cache a thumbnail. A new version of the collection has new URLs.",
        json_schema_extra=_SECONDS,
    )
    max_connections: int | None = Field(
        default=None, ge=1, description="Deprecated, without effect: a reverse proxy bounds connections."
    )

    # Images by URL

    urls: bool = Field(
        default=False,
        description="Whether requests may give images as URLs, which the service fetches. Otherwise: `url_disabled`.",
    )
    urls_allowed: str = Field(
        default="",
        description="Host names, addresses and networks to fetch from although they are not on the public internet, "
        "separated by spaces or commas: `images.internal 10.1.0.0/16`. Others: `url_refused`.",
    )
    url_timeout: float = Field(
        default=5.0,
        gt=0,
        description="Maximum time for fetching an image by URL. Beyond it: `url_failed`.",
        json_schema_extra=_SECONDS,
    )

    # Originals

    originals: bool = Field(
        default=False,
        description="Whether the image files that items were indexed from are served, to everyone with the role "
        "`read`: those below the folders of the sources, which must be at the same paths as for the job. Otherwise: "
        "`originals_disabled`.",
    )

    # Logs and telemetry

    log_format: Literal["text", "json"] = Field(
        default="text", description="Format of the log on stderr; `json` for one object per line."
    )
    access_log: bool = Field(default=False, description="Whether every request is logged.")
    tracing: bool = Field(
        default=False,
        description="Whether traces are exported by OpenTelemetry, which its `OTEL_*` variables configure. It must be "
        "installed: `pip install '.[tracing]'`.",
    )

    # Health and lifecycle

    health_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Additional port for `/livez`, `/readyz` and `/metrics` only; 0 for none. It responds even while "
        "hundreds of connections wait on the main port.",
    )
    probe_seconds: float = Field(
        default=5.0, gt=0, description="Interval of the probe queries behind `/readyz`.", json_schema_extra=_SECONDS
    )
    probe_timeout: float = Field(
        default=10.0,
        gt=0,
        description="Time after which a probe query, or a batch of the encoder, counts as stuck. `/readyz` then "
        "responds with 503.",
        json_schema_extra=_SECONDS,
    )
    drain_seconds: float = Field(
        default=1.0,
        ge=0,
        description="Time after SIGTERM in which requests are still accepted while `/readyz` responds with 503.",
        json_schema_extra=_SECONDS,
    )
    shutdown_seconds: int = Field(
        default=10,
        ge=1,
        description="Maximum time for requests in flight to finish during shutdown.",
        json_schema_extra=_SECONDS,
    )

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

    @field_validator("root_path")
    @classmethod
    def _root_path(cls, value: str) -> str:
        return parse_root_path(value)

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


def parse_root_path(text: str) -> str:
    """Return a root path without a slash at its end; it is empty for the root of the host.

    Raises:
        ValueError: it is too long, has another character than letters, digits and `._~@-`, an empty segment, `.` or
            `..`, or begins with a path of the service.
    """
    path = text.removesuffix("/")
    if path and not (len(path) <= MAX_ROOT_PATH_CHARS and _ROOT_PATH_PATTERN.fullmatch(path)):
        raise ValueError(
            "a root path is written like /lookalike: segments of letters, digits and ._~@-, in all at most "
            f"{MAX_ROOT_PATH_CHARS} characters"
        )
    if OWN_PATHS.intersection(path.split("/")[1:2]):
        raise ValueError("a root path must not begin with a path of the service itself; choose one like /lookalike")
    return path


def split_list(text: str) -> list[str]:
    """Return the entries of a list that is separated by white space or commas."""
    return text.replace(",", " ").split()


def misspelled_variables(environment: Iterable[str]) -> dict[str, str]:
    """Return variables that are not settings but resemble one, mapped to that setting's variable."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    unknown = [name for name in environment if name.startswith(PREFIX) and name not in known]
    matches = {name: difflib.get_close_matches(name, known, 1, cutoff=0.9) for name in unknown}
    return {name: similar[0] for name, similar in matches.items() if similar}
