"""A base encoder's name -> torch modules that can be trained, cut into stages from the input to the joint space.

The modules are the ones that `lookalike.encoders.exported.towers` rebuilds for serving. Dimension letters: n rows,
f features, d joint width, S side of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from lookalike.encoders.exported.encoder import PREFIX as FOLDER
from lookalike.encoders.exported.model import Architecture, load_tower, read_encoder
from lookalike.encoders.exported.towers import PooledLite, Projected, Towers
from lookalike.encoders.lite.backbones import load_efficientnet
from lookalike.encoders.lite.encoder import LiteTokens
from lookalike.encoders.lite.facts import POOLED
from lookalike.encoders.lite.model import LITE_DIM, LITE_PREPROCESSING, load_image_tower, load_text_tower
from lookalike.encoders.open_clip.encoder import OpenClipTokens
from lookalike.encoders.open_clip.model import OpenClipModel
from lookalike.encoders.open_clip.weights import PREFIX as OPEN_CLIP
from lookalike.encoders.open_clip.weights import find_checkpoint, parse_name
from lookalike.encoders.preprocessing import Preprocessing
from lookalike.errors import ConfigInvalid
from training.settings import Augment, Base

Tokens = Callable[[Sequence[str]], tuple[Any, ...]]


@dataclass
class Trainable:
    """Towers with a base encoder's weights.

    Attributes:
        towers: the modules; they map to vectors that are not normalised yet.
        architecture: what rebuilds them.
        preprocessing: S and normalisation.
        dim: d.
        tokens: n texts -> one array (n, t) for each input of the text tower; None for images alone.
        context: tokens that the text tower takes.
        end: see `open_clip_model.Description`.
        end_id: see there.
        projector: a head that only training sees (Chen et al. 2020, section 4.2); None for none.
    """

    towers: Towers
    architecture: Architecture
    preprocessing: Preprocessing
    dim: int
    tokens: Tokens | None = None
    context: int = 0
    end: str | None = None
    end_id: int = 0
    projector: nn.Module | None = None

    def encode_images(self, pixels: Tensor) -> Tensor:
        """(n, 3, S, S) uint8 -> (n, d) float32, unit rows."""
        return F.normalize(self.towers.image(pixels).float(), dim=-1)

    def compare_images(self, pixels: Tensor) -> Tensor:
        """(n, 3, S, S) uint8 -> what the loss compares, see `compare`."""
        return self.compare(self.towers.image(pixels).float())

    def compare(self, outputs: Tensor) -> Tensor:
        """The image tower's outputs (n, d), or what the projector makes of them, as unit rows for the loss."""
        return F.normalize((outputs if self.projector is None else self.projector(outputs)).float(), dim=-1)

    def encode_texts(self, tokens: Sequence[Tensor]) -> Tensor:
        """Arrays of `tokens` as tensors -> (n, d) float32, unit rows."""
        if self.towers.text is None:
            raise ConfigInvalid("this encoder has no text tower to train")
        return F.normalize(self.towers.text(*tokens).float(), dim=-1)

    def modules(self) -> nn.ModuleDict:
        """Both towers under the names that their weights are exported by."""
        sides = {"image": self.towers.image}
        if self.towers.text is not None:
            sides["text"] = self.towers.text
        return nn.ModuleDict(sides)


def load_base(base: Base, *, text: bool) -> Trainable:
    """The base encoder's towers.

    Args:
        base: the table `[base]`.
        text: whether texts are trained on; a head of its own has none.

    Raises:
        ConfigInvalid: no such kind of base, or a head beside texts.
        EncoderError: its weights are missing or invalid.
    """
    if text and base.projection:
        raise ConfigInvalid(f"base.projection = {base.projection}: a projection is for images alone; captions need 0")
    if text and base.head:
        raise ConfigInvalid(f"base.head = {base.head}: a new head is for images alone; captions need 0")
    if base.encoder == "lite":
        trainable = _lite(base.head, text)
    elif base.encoder.startswith(OPEN_CLIP):
        trainable = _open_clip(base.encoder, base.head, text)
    elif base.encoder.startswith(FOLDER):
        trainable = _exported(Path(base.encoder.removeprefix(FOLDER)).expanduser(), base.head, text)
    else:
        known = f"lite, {OPEN_CLIP}<model>/<pretrained> and {FOLDER}<path>"
        raise ConfigInvalid(f"base.encoder = {base.encoder!r} can't be trained; known are {known}")
    if base.projection:
        trainable.projector = nn.Sequential(
            nn.Linear(trainable.dim, trainable.dim), nn.ReLU(), nn.Linear(trainable.dim, base.projection)
        )
    return _resized(trainable, base.size)


def require_fitting(trainable: Trainable, augment: Augment) -> None:
    """Whether the augmentations suit the tower's input.

    Raises:
        ConfigInvalid: it is too small for them, or a vision transformer's, which can't grow.
    """
    size, grow_from = trainable.preprocessing.size, augment.grow_from
    if augment.pad >= size:
        raise ConfigInvalid(f"augment.pad = {augment.pad}: the encoder's input is {size} pixels; pad by less than that")
    if grow_from and _fixed_size(trainable):
        raise ConfigInvalid(
            f"augment.grow_from = {grow_from}: a vision transformer takes {size} pixels only; leave it at 0"
        )
    if grow_from > size:
        raise ConfigInvalid(
            f"augment.grow_from = {grow_from}: the encoder's input is {size} pixels; it can't grow to less"
        )


def _fixed_size(trainable: Trainable) -> bool:
    return trainable.architecture.family == "open_clip" and hasattr(
        trainable.towers.model.visual, "positional_embedding"
    )


def stages(tower: nn.Module) -> list[list[nn.Module | nn.Parameter]]:
    """The tower's parts from the input to the output: what freezing and layer-wise learning rates count by.

    EfficientNet: stem, blocks, last convolution, head. A vision transformer: embedding, blocks, head. Anything else:
    its children in the order of their definition.
    """
    core = tower.network if isinstance(tower, Projected) else tower
    head: list[list[nn.Module | nn.Parameter]] = [[tower.head]] if isinstance(tower, Projected) else []
    network = getattr(getattr(core, "backbone", core), "network", None)
    if network is not None:  # EfficientNet-Lite0
        parts: list[list[nn.Module | nn.Parameter]] = [[network.conv_stem, network.bn1], *([b] for b in network.blocks)]
        own = [[core.head]] if hasattr(core, "head") and not head else []
        return [*parts, [network.conv_head, network.bn2, network.classifier], *own, *head]
    visual = getattr(core, "visual", core)
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is None:
        return [*([child] for child in visual.children()), *head]
    inside = {id(p) for block in blocks for p in block.parameters()}
    names = dict(visual.named_parameters())
    late = ("ln_post", "proj", "attn_pool")
    early: list[nn.Module | nn.Parameter] = []
    last: list[nn.Module | nn.Parameter] = []
    for name, parameter in names.items():
        if id(parameter) not in inside:
            (last if name.startswith(late) else early).append(parameter)
    return [early, *([block] for block in blocks), last, *head]


def parameters_of(stage: Sequence[nn.Module | nn.Parameter]) -> Iterator[nn.Parameter]:
    """All parameters of a stage."""
    for part in stage:
        if isinstance(part, nn.Parameter):
            yield part
        else:
            yield from part.parameters()


def _lite(head: int, text: bool) -> Trainable:
    if head:
        network = load_efficientnet()
        network.classifier = nn.Identity()
        towers = Towers(Projected(PooledLite(network), POOLED, head), None)
        return Trainable(towers, Architecture("lite", head=head), LITE_PREPROCESSING, head)
    words = load_text_tower()[0] if text else None
    towers = Towers(load_image_tower(), words)
    return Trainable(
        towers, Architecture("lite", text=text), LITE_PREPROCESSING, LITE_DIM, LiteTokens() if text else None
    )


def _open_clip(name: str, head: int, text: bool) -> Trainable:
    parts = parse_name(name)
    loader = OpenClipModel(parts)
    described = loader.description
    if text and described.no_text:
        raise ConfigInvalid(f"base.encoder = {name!r} can't be trained on captions: {described.no_text}")
    quick = bool(find_checkpoint(parts).published.get("quick_gelu", False))
    architecture = Architecture("open_clip", parts.model, quick, head, text)
    image = loader.image_tower()
    towers = Towers(image, loader.text_tower() if text else None, loader.model())
    if head:
        towers = Towers(Projected(image, described.dim, head), None, loader.model())
    tokens = OpenClipTokens(loader.tokenizer, described.end, described.end_id) if text else None
    return Trainable(
        towers,
        architecture,
        described.preprocessing,
        head or described.dim,
        tokens,
        described.context if text else 0,
        described.end if text else None,
        described.end_id if text else 0,
    )


def _exported(folder: Path, head: int, text: bool) -> Trainable:
    exported = read_encoder(folder)
    had = exported.architecture
    if head and had.head:
        raise ConfigInvalid(f"base.head = {head}: {folder} has a head of {had.head} already; 0 trains that one on")
    if text and not had.text:
        raise ConfigInvalid(f"base.encoder = 'folder:{folder}' was trained on images alone and takes no captions")
    if head:
        raise ConfigInvalid(f"base.head = {head}: start a new head from `lite` or open_clip, not from {folder}")
    architecture = replace(had, text=text)
    towers = Towers(load_tower(folder, exported, "image"), load_tower(folder, exported, "text") if text else None)
    tokens: Tokens | None = None
    if text:
        tokens = LiteTokens() if had.family == "lite" else _folder_tokens(exported)
    return Trainable(
        towers,
        architecture,
        exported.preprocessing,
        exported.dim,
        tokens,
        exported.context if text else 0,
        exported.end if text else None,
        exported.end_id if text else 0,
    )


def _folder_tokens(exported: Any) -> Tokens:
    import open_clip

    return OpenClipTokens(lambda: open_clip.get_tokenizer(exported.architecture.model), exported.end, exported.end_id)


def _resized(trainable: Trainable, size: int) -> Trainable:
    had = trainable.preprocessing
    if size in (0, had.size):
        return trainable
    if _fixed_size(trainable):
        raise ConfigInvalid(f"base.size = {size}: a vision transformer takes {had.size} pixels only; leave it at 0")
    trainable.preprocessing = replace(had, size=size, resize=size)
    return trainable
