"""Families of networks: what training and exported encoders must know of a network, whichever package it comes from.

`families` finds a family by its name. Importing this module imports no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from lookalike.encoders.dual_encoder import IMAGE_BATCHES, Tokenize
from lookalike.encoders.engines.tower import Arrays
from lookalike.encoders.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Architecture:
    """Which modules an exported encoder's weights fill.

    Attributes:
        family: name of a `ModelFamily`.
        model: the family's name of the model; empty where it has one model only.
        quick_gelu: open_clip's older activation, which some published weights need.
        head: width d of a linear head on the features of the network; 0 where the family's own joint space is kept.
        text: whether there is a text tower; never together with a head of its own.
    """

    family: str
    model: str = ""
    quick_gelu: bool = False
    head: int = 0
    text: bool = False


@dataclass
class Towers:
    """Both towers; `text` is None for images alone, `model` the whole model where a library builds it as one."""

    image: nn.Module
    text: nn.Module | None
    model: Any = None


@dataclass(frozen=True)
class TextInput:
    """What a text tower takes.

    Attributes:
        example: one array for each input, two rows, for tracing.
        tokenize: texts -> such arrays.
        max_packed_tokens: as in `Tower`.
    """

    example: Arrays
    tokenize: Tokenize
    max_packed_tokens: int = 0


class ModelFamily(ABC):
    """How the networks of one family are built and run.

    Attributes:
        cuda_precision: the better precision on CUDA, `bf16` or `fp16`.
        image_batches: row counts of the image tower's graph, as in `Tower`.
        fp32_layers: of the image tower, as in `Tower`.
        text_hint: how to get texts where `text_available` is false.
        first_format: the lowest format of `encoder.json` whose weights fill the family's own joint space as it is now.
    """

    cuda_precision: ClassVar[str] = "bf16"
    image_batches: ClassVar[tuple[int, ...]] = IMAGE_BATCHES
    fp32_layers: ClassVar[tuple[int, int]] = (0, 0)
    text_hint: ClassVar[str] = ""
    first_format: ClassVar[int] = 1

    @property
    def round_to_bf16(self) -> Callable[[nn.Module], None] | None:
        """What rounds the image tower to bf16; None to cast it."""
        return None

    def text_available(self) -> bool:
        """Return whether the packages that texts need are installed."""
        return True

    @abstractmethod
    def build_towers(self, architecture: Architecture, preprocessing: Preprocessing) -> Towers:
        """Return the modules of an architecture with random weights; mean and std are part of the image tower."""

    def optimize_for_inference(self, tower: nn.Module) -> nn.Module:
        """Return a tower that gives the same vectors in less time; it can't be trained any more."""
        return tower

    @abstractmethod
    def text_input(self, model: str, *, context: int, end: str | None, end_id: int) -> TextInput:
        """Return what the text tower of `model` takes.

        Args:
            model: as in `Architecture`.
            context: tokens that the text tower takes.
            end: how the end token is found, as in `open_clip.model.Description`.
            end_id: its id.
        """

    @abstractmethod
    def code_digest(self) -> str:
        """Return a digest, hex, of the code that decides a tower's output: part of the key of a converted graph."""
