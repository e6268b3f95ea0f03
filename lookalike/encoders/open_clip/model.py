"""An open_clip model: its description, cached between starts, and the model itself while it is needed."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Literal

from lookalike.encoders.engines.cache import file_stamps, recall, remember, sha256_file
from lookalike.encoders.open_clip.tokenizer import load_tokenizer
from lookalike.encoders.open_clip.weights import Checkpoint, OpenClipName, as_path, find_checkpoint
from lookalike.encoders.preprocessing import Preprocessing
from lookalike.errors import EncoderError, WeightsInvalid

if TYPE_CHECKING:
    from torch import nn

_DESCRIPTION = 3  # incremented when the fields of `Description` change
_CONFIG_FILE = "open_clip_config.json"


@dataclass(frozen=True, slots=True)
class Description:
    """All that a start from converted towers must know of a model.

    Attributes:
        checkpoint: path of the weights.
        weights: SHA-256 over the file and the architecture, hex.
        dim: d.
        preprocessing: the tag's own.
        context: tokens the text tower takes.
        end: how the end token is found, `argmax` or `eos`; None where ids must not be trimmed.
        end_id: its id, for `eos`.
        text_fault: why texts can't be encoded; None where they can.
        temperature: 1 / exp(logit_scale), as it was learned.
    """

    checkpoint: str
    weights: str
    dim: int
    preprocessing: Preprocessing
    context: int
    end: str | None
    end_id: int
    text_fault: str | None
    temperature: float


class OpenClipModel:
    """A model that is built at most once for description and both towers, and released afterwards."""

    def __init__(self, name: OpenClipName) -> None:
        self.name = name
        self._model: Any = None

    @cached_property
    def description(self) -> Description:
        """The cached description if the files are unchanged, else one computed from the model."""
        path = as_path(self.name.pretrained)
        key = [_DESCRIPTION, version("open_clip_torch"), self.name.model, str(path or self.name.pretrained)]
        known = recall(key)
        if known is not None and _unchanged(known.pop("stamps", None)):
            return Description(**{**known, "preprocessing": _preprocessing_from(known["preprocessing"])})
        described = self._describe()
        stamps = file_stamps(_files(Path(described.checkpoint)))
        remember(key, {**asdict(described), "stamps": stamps})
        return described

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._model is not None

    def release(self) -> None:
        """Drop the model; a tower that still needs it loads it again."""
        self._model = None

    def image_tower(self) -> nn.Module:
        """Return the image tower."""
        from lookalike.encoders.open_clip.towers import ImageTower

        preprocessing = self.description.preprocessing
        return ImageTower(self.model().visual, preprocessing.mean, preprocessing.std)

    def text_tower(self) -> nn.Module:
        """Return the text tower."""
        from lookalike.encoders.open_clip.towers import text_tower

        return text_tower(self.model())

    def model(self, checkpoint: Checkpoint | None = None) -> Any:
        """Return the open_clip model, in eval mode, fp32, on the CPU."""
        if self._model is None:
            self._model = _load_model(self.name, checkpoint or find_checkpoint(self.name))
        return self._model

    def _describe(self) -> Description:
        checkpoint = find_checkpoint(self.name)  # before slow imports: the likeliest error

        from lookalike.encoders.open_clip.towers import end_id, end_pool

        model = self.model(checkpoint)
        return Description(
            checkpoint=str(checkpoint.path),
            weights=_weights_digest(self.name.model, checkpoint),
            dim=_joint_width(model),
            preprocessing=preprocessing_of(self.name.model, model, checkpoint),
            context=int(model.context_length),
            end=end_pool(model),
            end_id=end_id(model),
            text_fault=self._tokenizer_error(),
            temperature=math.exp(-model.logit_scale.item()),
        )

    def _tokenizer_error(self) -> str | None:
        try:
            load_tokenizer(self.name.model)
        except Exception as error:  # hub clients and tokenizer libraries raise exceptions of their own
            reason = (str(error) or type(error).__name__).splitlines()[0]
            return f"the tokenizer of open_clip's {self.name.model} is not available: {reason}"
        return None


def _load_model(name: OpenClipName, checkpoint: Checkpoint) -> Any:
    import open_clip

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # libraries' deprecations; what matters is raised
            model = open_clip.create_model(
                name.model,
                pretrained=str(checkpoint.path),
                force_quick_gelu=bool(checkpoint.published.get("quick_gelu", False)),
                weights_only=True,
            )
    except Exception as error:  # unpickling, safetensors, missing keys, tower configs on the hub: a dozen kinds
        reason = " ".join((str(error) or type(error).__name__).split())[:200]
        if isinstance(error, UnpicklingError):
            reason = "it holds more than tensors and is not run; save its state_dict as .safetensors"
        raise WeightsInvalid(f"{checkpoint.path} does not load as open_clip's {name.model}: {reason}") from error
    return model.eval()


def _files(checkpoint: Path) -> list[Path]:
    config_file = checkpoint.parent / _CONFIG_FILE
    return [checkpoint, config_file] if config_file.is_file() else [checkpoint]


def _unchanged(stamps: Any) -> bool:
    try:
        return bool(stamps) and file_stamps(Path(stamp[0]) for stamp in stamps) == stamps
    except (OSError, TypeError, IndexError):
        return False


def _weights_digest(model: str, checkpoint: Checkpoint) -> str:
    """The same file under another architecture (quick GELU, say) gives other vectors, so both are in the digest."""
    import open_clip

    config = dict(open_clip.get_model_config(model))
    config["quick_gelu"] = bool(config.get("quick_gelu") or checkpoint.published.get("quick_gelu"))
    text = json.dumps(config, sort_keys=True)
    return hashlib.sha256(f"{sha256_file(checkpoint.path)} {text}".encode()).hexdigest()


def _joint_width(model: Any) -> int:
    import torch

    sizes = model.visual.image_size
    height, width = sizes if isinstance(sizes, tuple | list) else (sizes, sizes)
    with torch.inference_mode():
        return int(model.encode_image(torch.zeros(1, 3, height, width)).shape[-1])


def preprocessing_of(name: str, model: Any, checkpoint: Checkpoint) -> Preprocessing:
    """Return the tag's preprocessing; a path's is in `open_clip_config.json` beside it, or open_clip's default."""
    config = {**model.visual.preprocess_cfg, **{k: v for k, v in checkpoint.published.items() if v is not None}}
    config_file = checkpoint.path.parent / _CONFIG_FILE
    if not checkpoint.published and config_file.is_file():
        config.update(json.loads(config_file.read_text("utf-8")).get("preprocess_cfg", {}))
    size = config["size"]
    sides = {size} if isinstance(size, int) else set(size)
    mode: dict[str, Literal["crop", "squash"]] = {"shortest": "crop", "squash": "squash"}
    if len(sides) != 1 or config["resize_mode"] not in mode:
        raise EncoderError(f"open_clip's {name} takes {size} pixels by {config['resize_mode']!r}: not supported here")
    side = sides.pop()
    interpolation: Literal["bicubic", "bilinear"] = "bilinear" if config["interpolation"] == "bilinear" else "bicubic"
    return Preprocessing(
        side, side, mode[config["resize_mode"]], interpolation, _rgb_values(config["mean"]), _rgb_values(config["std"])
    )


def _preprocessing_from(record: dict[str, Any]) -> Preprocessing:
    return Preprocessing(**{**record, "mean": _rgb_values(record["mean"]), "std": _rgb_values(record["std"])})


def _rgb_values(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(v) for v in (values if isinstance(values, tuple | list) else [values] * 3))
    return red, green, blue
