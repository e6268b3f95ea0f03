"""Every setting of the service: default, unit, one sentence of help.

Each is read from the environment as LOOKALIKE_<NAME>, or given by `lookalike serve`. `docs/settings.md` lists them, and
a test compares.
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
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#]+")


class Settings(BaseSettings):
    """The service's settings; constructor arguments win over the environment, the environment over the defaults."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, allow_inf_nan=False, env_ignore_empty=True)

    collection: Path = Field(default=Path("collection"), description="Folder of the collection to serve.")
    collections: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        description="More collections, folders between colons: each is served under its folder's name, at "
        "`/v1/collections/{name}/...`. A folder that is no collection stands for the collections in it, now and later.",
    )
    preload: bool = Field(
        default=True, description="Whether they are opened at start; else each when it is first asked for."
    )
    memory_budget: int = Field(
        default=0,
        ge=0,
        description="Bytes that open collections and their encoders may take, counted as files and weights; beyond "
        "them, whichever was not asked for longest is closed, but never the default one. 0 for no bound.",
    )
    encoder: str | None = Field(
        default=None,
        description="Encoder's name, for weights of the default collection that moved; by default the one it names. "
        "Another encoder than the collection's is refused.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where the encoder runs; `auto` takes CUDA where there is one."
    )
    engine: Literal["auto", "torch", "openvino"] = Field(
        default="auto", description="What runs the encoder; `auto` takes OpenVINO on a CPU and torch on CUDA."
    )
    store_device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="Where vectors are searched. `auto`: on CUDA, exactly, where there is one, its memory holds them, "
        "and the collection's store is `exact` or was chosen by `auto`; never on CUDA with `LOOKALIKE_DEVICE=cpu`. "
        "`cuda` insists, `cpu` keeps the collection's store.",
    )
    verify: bool = Field(
        default=True, description="Whether the collection's checksums are computed at start, about a second a gigabyte."
    )
    max_body_bytes: int = Field(
        default=32 * MIB, ge=1024, description="Largest request body, bytes; above it the answer is 413."
    )
    max_pixels: int = Field(
        default=DEFAULT_MAX_PIXELS, ge=1, description="Largest image, width x height in pixels; above it, 422."
    )
    max_results: int = Field(default=1_000, ge=1, description="Largest `limit` of a search, items.")
    max_candidates: int = Field(
        default=10_000, ge=1, description="Most rows that a search may have re-ranked (`params.candidates`)."
    )
    max_wait: float = Field(
        default=1.0, gt=0, description="Longest expected wait at which a query is let in, seconds; beyond it, 503."
    )
    deadline: float = Field(
        default=10.0, gt=0, description="Seconds from a query's body to its answer at most; beyond them, 503."
    )
    body_timeout: float = Field(
        default=30.0, gt=0, description="Seconds that a request's body may take to arrive; beyond them, 408."
    )
    rate_limit: str = Field(
        default="",
        description="Queries of one key, or of one address where there are no keys: `20/second`, `600/minute`; "
        "beyond it, 429. Empty for no limit.",
    )
    keys: SecretStr = Field(
        default=SecretStr(""),
        description="API keys, `read:KEY` or `admin:KEY`, between blanks or commas. Without any key, anyone may ask.",
    )
    keys_file: Path | None = Field(
        default=None, description="Key file that `lookalike key` writes; it holds SHA-256 digests only."
    )
    anonymous: bool = Field(
        default=False,
        description="Whether to answer anyone on an address that other machines reach; without keys, that is refused.",
    )
    hosts: str = Field(
        default="",
        description="Names under which a service without keys answers, between blanks or commas, `*` for any. "
        "Addresses, names without a dot and names that nobody can register (`.localhost`, `.local`, `.internal`) need "
        "not be listed.",
    )
    proxies: str = Field(
        default="",
        description="Addresses and networks of reverse proxies, between blanks or commas, whose `X-Forwarded-For` "
        "and `X-Forwarded-Proto` are believed: `127.0.0.1,10.1.0.0/16`. Empty for none.",
    )
    health_port: int = Field(
        default=0,
        ge=0,
        le=65535,
        description="Another port, on which `lookalike serve` answers `/livez`, `/readyz` and `/metrics` alone, also "
        "while hundreds of connections wait on the first. 0 for none.",
    )
    max_connections: int = Field(
        default=10_000,
        ge=1,
        description="Most connections at once, of each port; a new one beyond them is closed with 503.",
    )
    keep_alive: int = Field(
        default=75,
        ge=1,
        description="Seconds that a connection is kept from one request to the next; longer than what stands in front "
        "keeps its own (60 for nginx and most load balancers), or it sends a request into a connection that closes.",
    )
    cors_origins: str = Field(
        default="",
        description="Origins whose pages may ask from a browser, between blanks or commas: `https://shop.example`, or "
        "`*` for all. Empty for none but the service's own page.",
    )
    urls: bool = Field(default=False, description="Whether images may be given as URLs, which the service fetches.")
    urls_allowed: str = Field(
        default="",
        description="Host names, addresses and networks between blanks or commas that images are fetched from "
        "although they are not on the public internet: `images.internal 10.1.0.0/16`.",
    )
    url_timeout: float = Field(
        default=5.0, gt=0, description="Seconds that an image at a URL may take to arrive; beyond them, 422."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="Form of the log on stderr; `json` for an object a line."
    )
    access_log: bool = Field(default=False, description="Whether every request is logged, too.")
    tracing: bool = Field(
        default=False,
        description="Whether traces are sent by OpenTelemetry (`pip install '.[tracing]'`), which its own "
        "`OTEL_*` variables configure.",
    )
    watch_seconds: float = Field(
        default=2.0,
        ge=0,
        description="How often to look for new versions, new collections, and a changed key file; 0 for never: "
        "then reloads alone open what could not be opened.",
    )
    probe_seconds: float = Field(default=5.0, gt=0, description="How often /readyz's probe queries are sent.")
    probe_timeout: float = Field(
        default=10.0, gt=0, description="Seconds after which a probe, or a batch on the device, counts as stuck."
    )
    open_timeout: float = Field(
        default=120.0, gt=0, description="Seconds that the first queries to a newly opened version may take."
    )
    drain_seconds: float = Field(
        default=1.0, ge=0, description="After SIGTERM: seconds of answering while /readyz says 503 already."
    )
    shutdown_seconds: int = Field(
        default=10, ge=1, description="Seconds that requests in flight have to finish, once no more are taken."
    )
    max_text: int = Field(default=1_000, ge=1, description="Longest text query, characters.")
    worker_threads: int = Field(
        default=max(2, min(8, os.cpu_count() or 2)),
        ge=1,
        description="Threads that decode images, as many that search, and as many that read items and thumbnails; "
        "two more own the device. By default one a core, 2 to 8.",
    )
    thumbnail_max_age: int = Field(
        default=3_600, ge=0, description="How long a browser may keep a thumbnail without asking again, seconds."
    )

    @field_validator("collections", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, value.split(os.pathsep))) if isinstance(value, str) else value

    @field_validator("proxies")
    @classmethod
    def _addresses(cls, value: str) -> str:
        for entry in words(value):
            if entry != "*":
                ip_network(entry, strict=False)  # its message names the entry
        return ",".join(words(value))

    @field_validator("cors_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        for entry in words(value):
            if entry != "*" and not _ORIGIN.fullmatch(entry):
                raise ValueError(f"{entry!r} is no origin; write it like https://shop.example, with nothing behind")
        return value

    def limits(self) -> Limits:
        """What a single query may ask for."""
        return Limits(
            results=self.max_results, candidates=self.max_candidates, text=self.max_text, pixels=self.max_pixels
        )


def words(text: str) -> list[str]:
    """What stands between blanks or commas."""
    return text.replace(",", " ").split()


def misspelt(environment: Iterable[str]) -> dict[str, str]:
    """Variables that are no settings but look like one -> that one."""
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    strange = [name for name in environment if name.startswith(PREFIX) and name not in known]
    near = {name: difflib.get_close_matches(name, known, 1, cutoff=0.9) for name in strange}
    return {name: found[0] for name, found in near.items() if found}
