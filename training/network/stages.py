"""The stages of an image tower from input to output, and freezing by stages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from lookalike.encoders.projected import Projected
from training.network.trainable import Trainable
from training.settings import Base

Stage = list[nn.Module | nn.Parameter]
_OUTPUT_PARAMETERS = ("ln_post", "proj", "attn_pool")
"""Prefixes of a vision transformer's parameters that come after its blocks."""


def stages(tower: nn.Module) -> list[Stage]:
    """Return the tower's parts from input to output: the units of freezing and of layer-wise learning rates.

    EfficientNet: stem, blocks, last convolution, head. A vision transformer: embedding, blocks, head. Anything else:
    its children in the order of their definition.
    """
    core = tower.network if isinstance(tower, Projected) else tower
    head: list[Stage] = [[tower.head]] if isinstance(tower, Projected) else []
    network = getattr(getattr(core, "backbone", core), "network", None)
    if network is not None:  # timm's EfficientNet
        own_head: list[Stage] = [[core.get_submodule("head")]] if hasattr(core, "head") and not head else []
        body: list[Stage] = [[network.conv_stem, network.bn1], *([block] for block in network.blocks)]
        return [*body, [network.conv_head, network.bn2, network.classifier], *own_head, *head]
    visual = getattr(core, "visual", core)
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    if blocks is None:
        return [*([child] for child in visual.children()), *head]
    return [*_transformer_stages(visual, blocks), *head]


def _transformer_stages(visual: nn.Module, blocks: nn.ModuleList) -> list[Stage]:
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    outside = {name: value for name, value in visual.named_parameters() if id(value) not in inside}
    first: Stage = [value for name, value in outside.items() if not name.startswith(_OUTPUT_PARAMETERS)]
    last: Stage = [value for name, value in outside.items() if name.startswith(_OUTPUT_PARAMETERS)]
    middle: list[Stage] = [[block] for block in blocks]
    return [first, *middle, last]


def parameters_of(stage: Sequence[nn.Module | nn.Parameter]) -> Iterator[nn.Parameter]:
    """Yield all parameters of a stage."""
    for part in stage:
        if isinstance(part, nn.Parameter):
            yield part
        else:
            yield from part.parameters()


def text_parameters(trainable: Trainable) -> list[nn.Parameter]:
    """Return the text tower's parameters that the image tower does not share: CLIP's towers are parts of one model."""
    if trainable.towers.text is None:
        return []
    shared = {id(parameter) for parameter in trainable.towers.image.parameters()}
    return [parameter for parameter in trainable.towers.text.parameters() if id(parameter) not in shared]


def freeze(trainable: Trainable, base: Base) -> list[nn.Module]:
    """Stop the gradients of what `[base]` freezes; return the modules that must stay in eval mode as well."""
    frozen: list[nn.Module] = []
    parts = stages(trainable.towers.image)
    for stage in parts[: round(base.freeze * len(parts))]:
        for parameter in parameters_of(stage):
            parameter.requires_grad_(False)
        frozen += [part for part in stage if isinstance(part, nn.Module)]
    if base.freeze_text:
        frozen += _freeze_text(trainable)
    return frozen


def _freeze_text(trainable: Trainable) -> list[nn.Module]:
    """Freeze the text tower except for its head; a tower without a module `head` is frozen whole."""
    text = trainable.towers.text
    head = {id(parameter) for parameter in getattr(text, "head", nn.Module()).parameters()}
    for parameter in text_parameters(trainable):
        parameter.requires_grad_(id(parameter) in head)
    if text is None or not hasattr(text, "head"):
        return []
    return [child for name, child in text.named_children() if name != "head"]
