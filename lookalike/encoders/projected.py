"""A network with a linear head of its own: the image tower of an encoder that was trained into a new space."""

from __future__ import annotations

from torch import Tensor, nn
from typing_extensions import override


class Projected(nn.Module):
    """A network and a linear head: (n, 3, S, S) uint8 RGB -> (n, d), not normalised."""

    def __init__(self, network: nn.Module, features: int, dim: int) -> None:
        super().__init__()
        self.network = network
        self.head = nn.Linear(features, dim)

    @override
    def forward(self, pixels: Tensor) -> Tensor:
        projected: Tensor = self.head(self.network(pixels))
        return projected
