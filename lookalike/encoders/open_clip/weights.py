"""From `<model>/<pretrained>` to a checkpoint file on this disk, without building a model.

Searched in this order: a path; our own weights folder; the caches of open_clip and of the Hugging Face hub; the
network, unless `HF_HUB_OFFLINE` is set or the host does not accept a connection within seconds.
"""

from __future__ import annotations

import difflib
import os
import socket
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from lookalike.encoders.engines import cache_folder
from lookalike.encoders.engines.options import PRECISIONS
from lookalike.errors import EncoderError, UnknownEncoder, WeightsInvalid, WeightsMissing

PREFIX = "open_clip:"
FORM = "open_clip:<model>/<pretrained>[@<precision>]"
SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".npz")
_PROBE_SECONDS = 3.0
_WHOLE_REPOSITORY = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class OpenClipName:
    """The parts of an encoder's name.

    Attributes:
        model: open_clip's architecture name.
        pretrained: a published tag or a path.
        precision: `auto` where the name says nothing.
    """

    model: str
    pretrained: str
    precision: str = "auto"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A file of weights.

    Attributes:
        path: the file.
        published: what open_clip publishes with the tag: mean, std, interpolation, resize_mode, quick_gelu. Empty
            for a path.
    """

    path: Path
    published: dict[str, Any] = field(default_factory=dict)


def parse_name(name: str) -> OpenClipName:
    """`open_clip:ViT-B-32/laion2b_s34b_b79k@fp32` -> its parts.

    Raises:
        UnknownEncoder: another form, or a model that open_clip does not have; names close ones.
    """
    model, slash, pretrained = name.removeprefix(PREFIX).partition("/")
    head, at, suffix = pretrained.rpartition("@")
    precision = "auto"
    if at and suffix in PRECISIONS:
        pretrained, precision = head, suffix
    elif suffix.isalnum() and at and not Path(pretrained).expanduser().exists():
        raise UnknownEncoder(f"{name!r}: unknown precision {suffix!r}; use {', '.join(PRECISIONS)}")
    if not (model and slash and pretrained):
        raise UnknownEncoder(f"{name!r} is not of the form {FORM}, <pretrained> being a tag or a file's path")
    if model not in model_names():
        raise UnknownEncoder(f"open_clip has no model {model!r}{close_matches(model, model_names())}")
    return OpenClipName(model, pretrained, precision)


def package_folder() -> Path:
    """Return where open_clip is installed, without importing it (which would import torch).

    Raises:
        EncoderError: it is not installed.
    """
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise EncoderError("open_clip is not installed: pip install open_clip_torch")
    return Path(spec.origin).parent


def model_names() -> list[str]:
    """Return the names of open_clip's architectures, including those added by `open_clip.add_model_config`."""
    names = {path.stem for path in (package_folder() / "model_configs").glob("*.json")}
    imported = sys.modules.get("open_clip")
    return sorted(names.union(imported.list_models() if imported is not None else ()))


def close_matches(word: str, known: list[str]) -> str:
    """`; close are 'a', 'b'`, or nothing; case-insensitive."""
    lowered = {name.lower(): name for name in known}
    found = [lowered[match] for match in difflib.get_close_matches(word.lower(), list(lowered), n=3, cutoff=0.5)]
    return f"; close are {', '.join(map(repr, found))}" if found else "; `lookalike encoders --all` lists all"


def as_path(pretrained: str) -> Path | None:
    """Return the path of a checkpoint, or None where the name must be a tag."""
    path = Path(pretrained).expanduser()
    looks_like_one = path.suffix in SUFFIXES or "/" in pretrained
    return path if looks_like_one or path.is_file() else None


def find_checkpoint(name: OpenClipName) -> Checkpoint:
    """Return the checkpoint of a name; a published tag is downloaded if no file of it is installed.

    Raises:
        UnknownEncoder: no tag and no path.
        WeightsInvalid: a path of another kind of file.
        WeightsMissing: no file at the path, or the download failed; says which file to put where.
    """
    path = as_path(name.pretrained)
    if path is not None:
        if not path.is_file():
            raise WeightsMissing(f"no checkpoint at {path} for open_clip's {name.model}")
        if path.suffix not in SUFFIXES:
            raise WeightsInvalid(f"{path} is no checkpoint: a name ending in {', '.join(SUFFIXES)} is expected")
        return Checkpoint(path.resolve())
    published = published_tag(name.model, name.pretrained)
    installed = find_published(name.model, name.pretrained, published)
    return Checkpoint(installed or _download(name, published), published)


def published_tag(model: str, tag: str) -> dict[str, Any]:
    """Return what open_clip publishes with a tag.

    Raises:
        UnknownEncoder: it has no such tag for this model; names the ones it has.
    """
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    published = get_pretrained_cfg(model, tag)
    if not published:
        tags = list_pretrained_tags_by_model(model)
        available = f"its tags are {', '.join(tags)}" if tags else "it has no published weights"
        raise UnknownEncoder(f"open_clip's {model} has no tag {tag!r}: {available}; a checkpoint's path does as well")
    return dict(published)


def manual_download_path(model: str, tag: str, suffix: str = ".safetensors") -> Path:
    """Return the path for a file fetched by hand; the tag in its name determines its preprocessing."""
    return cache_folder() / "open_clip" / model / f"{tag}{suffix}"


def find_published(model: str, tag: str, published: dict[str, Any]) -> Path | None:
    """Return the installed file of a published tag, or None; uses no network."""
    from huggingface_hub import try_to_load_from_cache

    for suffix in SUFFIXES:
        if (path := manual_download_path(model, tag, suffix)).is_file():
            return path
    for repository, filename in hub_files(published):
        cached = try_to_load_from_cache(repository, filename)
        if isinstance(cached, str):
            return Path(cached)
    if not published.get("hf_hub"):
        path = Path("~/.cache/clip").expanduser() / os.path.basename(published.get("url", "") or "none")
        return path if path.is_file() else None
    return None


def hub_files(published: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (repository, file) pairs that hold a tag's weights on the hub, the preferred one first."""
    repository, filename = os.path.split(published.get("hf_hub") or "")
    if repository and filename:
        stem, suffix = os.path.splitext(filename)
        if suffix in (".bin", ".pth"):
            yield repository, f"{stem}.safetensors"
        yield repository, filename
    elif repository:
        yield from ((repository, name) for name in _WHOLE_REPOSITORY)


def _download(name: OpenClipName, published: dict[str, Any]) -> Path:
    from open_clip.pretrained import download_pretrained

    address = _download_url(published)
    reason = _unreachable_reason(address)
    if reason is None:
        try:
            return Path(download_pretrained(published))
        except Exception as error:  # the hub client, urllib and open_clip raise many classes; each means: not fetched
            reason = (str(error) or type(error).__name__).splitlines()[0]
    path = manual_download_path(name.model, name.pretrained, os.path.splitext(address)[1])
    raise WeightsMissing(
        f"the weights of {PREFIX}{name.model}/{name.pretrained} are not installed and could not be fetched ({reason}): "
        f"fetch {address} and put it at {path}"
    )


def _download_url(published: dict[str, Any]) -> str:
    for repository, filename in hub_files(published):
        endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        return f"{endpoint}/{repository}/resolve/main/{filename}"
    return str(published.get("url", ""))


def _unreachable_reason(address: str) -> str | None:
    """Return why a download would fail, or None; its own retries would take minutes."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return "HF_HUB_OFFLINE is set"
    parts = urlsplit(address)
    if urllib.request.getproxies().get(parts.scheme):
        return None  # a proxy resolves and connects for us
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
        socket.create_connection((parts.hostname or "", port), timeout=_PROBE_SECONDS).close()
    except OSError as error:
        return f"no connection to {parts.hostname}: {error.strerror or error}"
    return None
