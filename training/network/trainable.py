"""Towers that can be trained, with the properties that training depends on.

Dimension letters: n rows, d joint width, t tokens, S side of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lookalike.encoders.architecture import Architecture, Towers
from lookalike.encoders.preprocessing import Preprocessing
from lookalike.errors import ConfigInvalid, SourceError
from training.settings import Augment

Tokens = Callable[[Sequence[str]], tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Traits:
    """Properties of a family of networks that training depends on.

    Attributes:
        max_learning_rate: peak rate of the last stage above which a pretrained network tends to forget.
        leading_modules: image tower -> the modules that the input passes first, in order, as long as nothing but the
            next module reads a module's output; None where they are unknown.
    """

    max_learning_rate: float = inf
    leading_modules: Callable[[nn.Module], list[nn.Module]] | None = None


@dataclass
class Trainable:
    """Towers with a base encoder's weights.

    Attributes:
        towers: the modules; they map to vectors that are not normalized yet.
        architecture: what rebuilds them.
        preprocessing: S and normalization.
        dim: d.
        tokens: n texts -> one array (n, t) for each input of the text tower; None for images alone.
        context: tokens that the text tower takes.
        end: how the end token is found, as in `ExportedEncoder`.
        end_id: its id.
        projector: a head that only training uses (Chen et al. 2020, section 4.2); None for none.
        traits: of the family of networks.
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
    traits: Traits = field(default_factory=Traits)

    @property
    def fixed_size(self) -> bool:
        """Whether the image tower takes one input size only, as a vision transformer does."""
        visual = getattr(self.towers.model, "visual", None)
        return hasattr(visual, "positional_embedding")

    def encode_images(self, pixels: Tensor) -> Tensor:
        """(n, 3, S, S) uint8 -> (n, d) float32, unit rows."""
        return F.normalize(self.towers.image(pixels).float(), dim=-1)

    def project_images(self, pixels: Tensor) -> Tensor:
        """(n, 3, S, S) uint8 -> unit rows for the loss, see `project`."""
        return self.project(self.towers.image(pixels).float())

    def project(self, outputs: Tensor) -> Tensor:
        """The image tower's outputs (n, d), passed through the projector if there is one -> unit rows for the loss."""
        return F.normalize((outputs if self.projector is None else self.projector(outputs)).float(), dim=-1)

    def encode_texts(self, tokens: Sequence[Tensor]) -> Tensor:
        """Arrays of `tokenize` -> (n, d) float32, unit rows."""
        if self.towers.text is None:
            raise ConfigInvalid("this encoder has no text tower to train")
        return F.normalize(self.towers.text(*tokens).float(), dim=-1)

    def tokenize(self, texts: Sequence[str], device: torch.device) -> list[Tensor]:
        """Return the text tower's inputs for n texts, (n, t) each."""
        if self.tokens is None:
            raise SourceError("this encoder takes no texts")
        return [torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in self.tokens(texts)]

    def modules(self) -> nn.ModuleDict:
        """Return both towers under the names that their weights are exported by."""
        towers = {"image": self.towers.image}
        if self.towers.text is not None:
            towers["text"] = self.towers.text
        return nn.ModuleDict(towers)


def require_compatible(trainable: Trainable, augment: Augment) -> None:
    """Check that the augmentations fit the tower's input.

    Raises:
        ConfigInvalid: the input is too small for them, or has a fixed size and can't grow.
    """
    size, grow_from = trainable.preprocessing.size, augment.grow_from
    if augment.pad >= size:
        raise ConfigInvalid(f"augment.pad = {augment.pad}: the encoder's input is {size} pixels; pad by less than that")
    if grow_from and trainable.fixed_size:
        raise ConfigInvalid(
            f"augment.grow_from = {grow_from}: a vision transformer takes {size} pixels only; leave it at 0"
        )
    if grow_from > size:
        raise ConfigInvalid(
            f"augment.grow_from = {grow_from}: the encoder's input is {size} pixels; it must be at most that"
        )


def inference_batch_size(device: torch.device) -> int:
    """Return how many images or texts a tower embeds at a time; few on a CPU, so that activations stay in its cache.

    EfficientNet-Lite0 at 160 pixels, two cores: 270 images/s in bf16 and 168 in fp32 by 16, 190 and 118 by 64.
    """
    return 16 if device.type == "cpu" else 64
