"""Names -> encoders, and the list of known names. Each factory imports its own libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from lookalike.encoders.engines.options import EngineOptions
from lookalike.encoders.protocol import Encoder
from lookalike.errors import EncoderError, UnknownEncoder

FORMS = ("lite", "open_clip:<model>/<pretrained>[@<precision>]", "folder:<path>")


@dataclass(frozen=True, slots=True)
class KnownEncoder:
    """One row of `lookalike encoders`.

    Attributes:
        name: the encoder's name.
        description: half a line.
        installed: whether its weights are on this disk.
        dim: width d of the joint space; None where it is not known without the weights.
        hint: how to get the weights; empty if they are installed.
    """

    name: str
    description: str
    installed: bool
    dim: int | None
    hint: str


def load_encoder(name: str, options: EngineOptions = EngineOptions()) -> Encoder:
    """Return an encoder by its name; `lookalike encoders` lists them.

    Args:
        name: `lite`, `open_clip:<model>/<pretrained>[@<precision>]`, `folder:<path>`, or `fake` in tests.
        options: device, engine, precision and threads.

    Raises:
        UnknownEncoder: no encoder has that name; the message suggests similar ones.
        EncoderError: weights missing or invalid, or an engine that can't run here.
    """
    kind = name.partition(":")[0]
    factory = _FACTORIES.get(kind)
    if factory is None or (":" in name) != (kind in _WITH_ARGUMENT):
        raise UnknownEncoder(f"unknown encoder {name!r}{_suggest(name)}; the forms are {', '.join(FORMS)}")
    return factory(name, options)


def known_encoders(*, every: bool = False) -> Iterator[KnownEncoder]:
    """List the encoders: `lite`, then open_clip's tags whose weights are installed.

    Args:
        every: open_clip's other tags as well.
    """
    yield _known_lite()
    tags = list(_known_open_clip())
    yield from (tag for tag in tags if tag.installed)
    if every:
        yield from (tag for tag in tags if not tag.installed)


def _fake(name: str, options: EngineOptions) -> Encoder:
    from lookalike.encoders.fake import FakeEncoder

    return FakeEncoder()


def _lite(name: str, options: EngineOptions) -> Encoder:
    from lookalike.encoders.lite.encoder import lite_encoder

    return lite_encoder(options)


def _open_clip(name: str, options: EngineOptions) -> Encoder:
    from lookalike.encoders.open_clip.encoder import open_clip_encoder

    return open_clip_encoder(name, options)


def _folder(name: str, options: EngineOptions) -> Encoder:
    from lookalike.encoders.exported.encoder import folder_encoder

    return folder_encoder(name, options)


_FACTORIES: dict[str, Callable[[str, EngineOptions], Encoder]] = {
    "lite": _lite,
    "open_clip": _open_clip,
    "folder": _folder,
    "fake": _fake,
}
_WITH_ARGUMENT = {"open_clip", "folder"}


def _suggest(name: str) -> str:
    from lookalike.encoders.open_clip.weights import PREFIX, close_matches, model_names

    if name in _WITH_ARGUMENT:
        return ": it needs " + ("a model and its weights" if name == "open_clip" else "a path")
    model = name.removeprefix(PREFIX).partition("/")[0]
    if model in model_names():
        return f"; did you mean '{PREFIX}{model}/<pretrained>'?"
    return close_matches(name, ["lite", *model_names()])


def _known_lite() -> KnownEncoder:
    from lookalike.encoders.lite.constants import LITE_DIM
    from lookalike.encoders.lite.weights import TEXT_HINT, text_available, weights_digest

    try:
        weights_digest()
    except EncoderError as error:
        return KnownEncoder("lite", "embedded, offline, the default", False, LITE_DIM, str(error))
    text = text_available()
    description = f"embedded, offline, the default; {'images and text' if text else 'images only'}"
    return KnownEncoder("lite", description, True, LITE_DIM, "" if text else f"for text: {TEXT_HINT}")


def _known_open_clip() -> Iterator[KnownEncoder]:
    from open_clip import get_model_config
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained

    from lookalike.encoders.open_clip.weights import PREFIX, find_published, hub_files

    for model, tag in list_pretrained():
        published = get_pretrained_cfg(model, tag)
        installed = find_published(model, tag, published) is not None
        files = [f"{repository}/{file}" for repository, file in hub_files(published)] or [published.get("url", "")]
        dim = (get_model_config(model) or {}).get("embed_dim")
        description = f"open_clip's {model}, weights {tag}"
        yield KnownEncoder(
            f"{PREFIX}{model}/{tag}", description, installed, dim, "" if installed else f"fetch {files[0]}"
        )
