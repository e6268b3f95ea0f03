"""Registry of encoders by name. A new kind is one record in the table below; its functions import its libraries."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from lookalike.calibration import Calibration
from lookalike.encoders.engines.options import EngineOptions
from lookalike.encoders.protocol import Encoder
from lookalike.errors import EncoderError, UnknownEncoder
from lookalike.messages import number_of


@dataclass(frozen=True, slots=True)
class KnownEncoder:
    """One row of `lookalike encoders`.

    Attributes:
        name: the encoder's name.
        description: half a line.
        installed: whether its weights are on this disk.
        dim: width d of the joint space; None where it is not known without the weights.
        hint: how to get the weights; empty if they are installed.
        languages: of texts, as in `EncoderSpec`.
        limits: as in `EncoderSpec`.
    """

    name: str
    description: str
    installed: bool
    dim: int | None
    hint: str
    languages: tuple[str, ...] = ()
    limits: str = ""


@dataclass(frozen=True, slots=True)
class EncoderKind:
    """Encoders whose names begin alike.

    Attributes:
        form: how their names are written: `<kind>`, or `<kind>:<argument>`.
        load: (name, options) -> encoder.
        known: yields those that `lookalike encoders` lists.
        argument: what the name must have after the colon, for messages; empty where it has none.
        calibration: name -> the encoder's calibration, read without its weights; None where there is none.
        for_tests: whether messages leave it out.
    """

    form: str
    load: Callable[[str, EngineOptions], Encoder]
    known: Callable[[], Iterable[KnownEncoder]] = tuple
    argument: str = ""
    calibration: Callable[[str], Calibration | None] = lambda name: None
    for_tests: bool = False

    @property
    def name(self) -> str:
        """Return the beginning of the encoders' names."""
        return self.form.partition(":")[0]


def load_encoder(name: str, options: EngineOptions = EngineOptions()) -> Encoder:
    """Return an encoder by its name; `lookalike encoders` lists them.

    Args:
        name: `lite`, `open_clip:<model>/<pretrained>[@<precision>]`, `folder:<path>`, or `fake` in tests.
        options: device, engine, precision and threads.

    Raises:
        UnknownEncoder: no encoder has that name; the message suggests similar ones.
        EncoderError: weights missing or invalid, or an engine that can't run here.
    """
    kind = _KINDS.get(name.partition(":")[0])
    if kind is None or (":" in name) != bool(kind.argument):
        forms = ", ".join(kind.form for kind in _KINDS.values() if not kind.for_tests)
        raise UnknownEncoder(f"unknown encoder {name!r}{_suggest(name)}; the forms are {forms}")
    return kind.load(name, options)


def calibration_of(name: str) -> Calibration | None:
    """Return the calibration of an encoder by its name, without loading its weights.

    Returns:
        None for an unknown name, and where the encoder has no calibration or is not on this disk.

    Raises:
        WeightsInvalid: the calibration's file is damaged.
    """
    kind = _KINDS.get(name.partition(":")[0])
    return None if kind is None else kind.calibration(name)


def encoder_kinds() -> tuple[EncoderKind, ...]:
    """Return the registered kinds."""
    return tuple(_KINDS.values())


def known_encoders(*, every: bool = False) -> Iterator[KnownEncoder]:
    """List the encoders: `lite`, then open_clip's tags whose weights are installed.

    Args:
        every: open_clip's other tags as well, at the end.
    """
    known = [(encoder, encoder.installed or not kind.argument) for kind in _KINDS.values() for encoder in kind.known()]
    yield from (encoder for encoder, listed in known if listed)
    if every:
        yield from (encoder for encoder, listed in known if not listed)


def _fake(name: str, options: EngineOptions) -> Encoder:
    from lookalike.encoders.fake import FakeEncoder

    return FakeEncoder()


def _lite(name: str, options: EngineOptions) -> Encoder:
    from lookalike.encoders.lite.encoder import lite_encoder

    return lite_encoder(options)


def _lite_calibration(name: str) -> Calibration | None:
    from lookalike.encoders.lite.encoder import lite_calibration

    return lite_calibration()


def _open_clip(name: str, options: EngineOptions) -> Encoder:
    from lookalike.encoders.open_clip.encoder import open_clip_encoder

    return open_clip_encoder(name, options)


def _folder(name: str, options: EngineOptions) -> Encoder:
    from lookalike.encoders.exported.encoder import folder_encoder

    return folder_encoder(name, options)


def _folder_calibration(name: str) -> Calibration | None:
    from lookalike.encoders.exported.encoder import folder_calibration

    return folder_calibration(name)


def _suggest(name: str) -> str:
    from lookalike.encoders.open_clip.weights import PREFIX, close_matches, model_names

    if name in _KINDS and _KINDS[name].argument:
        return f": it needs {_KINDS[name].argument}"
    model = name.removeprefix(PREFIX).partition("/")[0]
    if model in model_names():
        return f"; did you mean '{PREFIX}{model}/<pretrained>'?"
    without_argument = [kind.name for kind in _KINDS.values() if not (kind.argument or kind.for_tests)]
    return close_matches(name, [*without_argument, *model_names()])


def _known_lite() -> Iterator[KnownEncoder]:
    from lookalike.encoders.lite.abilities import LANGUAGES, LIMITS
    from lookalike.encoders.lite.constants import LITE_DIM
    from lookalike.encoders.lite.weights import TEXT_HINT, text_available, weights_digest

    try:
        weights_digest()
    except EncoderError as error:
        yield KnownEncoder("lite", "embedded, offline, the default", False, LITE_DIM, str(error))
        return
    text = text_available()
    languages = LANGUAGES if text else ()
    searched = f"images and text in {number_of(len(languages), 'language')}" if text else "images only"
    description, hint = f"embedded, offline, the default; {searched}", "" if text else f"for text: {TEXT_HINT}"
    yield KnownEncoder("lite", description, True, LITE_DIM, hint, languages, LIMITS)


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


_KINDS = {
    kind.name: kind
    for kind in (
        EncoderKind("lite", _lite, _known_lite, calibration=_lite_calibration),
        EncoderKind(
            "open_clip:<model>/<pretrained>[@<precision>]", _open_clip, _known_open_clip, "a model and its weights"
        ),
        EncoderKind("folder:<path>", _folder, argument="a path", calibration=_folder_calibration),
        EncoderKind("fake", _fake, for_tests=True),
    )
}
