"""Noise-contrastive estimation of a 2-D mixture: `python docs/examples/nce_mixture.py` plots the learned density.

It applies the idea of the contrastive losses of `training.objectives` in two dimensions, where the result is visible: a
network learns a density by classifying points as data or noise (Gutmann and Hyvärinen 2010, JMLR 2012). With a density
of unknown normalization log p(x) = f(x) + c, the noise's density q and v noise samples per point:

    G(x) = log p(x) - log q(x) - log v
    L = - mean over points x of log sigmoid(G(x)) - v * mean over noise y of log sigmoid(-G(y))

At the minimum p is the data's density. It integrates to 1 without a constraint, since c is learned, too.

Dimension letters: n points, v noise samples per point, g side of the grid.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from torch.nn import functional as F

POINTS, STEPS, BATCH, WIDTH = 2000, 1500, 200, 64
EXTENT, GRID = 6.0, 121  # the grid covers [-6, 6] squared


@dataclass(frozen=True, slots=True)
class Learned:
    """A fitted density.

    Attributes:
        log_density: (n, 2) -> (n,), f + c.
        losses: of every step.
        integral: of the density over the grid; 1 if the normalization was learned.
        distance: total variation to the truth, half the integral of |p - truth|: 0 if equal, 1 if disjoint.
    """

    log_density: Callable[[Tensor], Tensor]
    losses: list[float]
    integral: float
    distance: float


class Energy(nn.Module):
    """f(x) + c: two hidden layers and a free constant.

    Far from the data only noise bounds f; a broad Gaussian as part of f keeps the density integrable.
    """

    def __init__(self) -> None:
        super().__init__()
        self.f = nn.Sequential(nn.Linear(2, WIDTH), nn.SiLU(), nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 1))
        self.c = nn.Parameter(torch.tensor(-4.0))

    def forward(self, points: Tensor) -> Tensor:
        """(n, 2) -> (n,), the logarithm of the density."""
        inner: Tensor = self.f(points).squeeze(1)
        return inner - points.square().sum(1) / 18 + self.c


def mixture() -> MixtureSameFamily:
    """Return the true density: three Gaussians of different size, shape and direction."""
    means = torch.tensor([[-2.0, -1.0], [2.0, -1.5], [0.5, 2.0]])
    spreads = torch.tensor([[[0.6, 0.4], [0.4, 0.6]], [[0.3, 0.0], [0.0, 1.0]], [[1.2, -0.3], [-0.3, 0.3]]])
    return MixtureSameFamily(Categorical(torch.tensor([0.4, 0.3, 0.3])), MultivariateNormal(means, spreads))


def nce_loss(model: nn.Module, noise: MultivariateNormal, points: Tensor, noise_points: Tensor) -> Tensor:
    """Compute L as above.

    Args:
        model: (n, 2) -> (n,), log p.
        noise: q.
        points: (n, 2) of the data.
        noise_points: (v n, 2) of the noise.
    """
    ratio = len(noise_points) / len(points)
    log_ratio = torch.tensor(ratio).log()
    real = model(points) - noise.log_prob(points) - log_ratio
    fake = model(noise_points) - noise.log_prob(noise_points) - log_ratio
    return -F.logsigmoid(real).mean() - ratio * F.logsigmoid(-fake).mean()


def learn(noise_per_point: int, seed: int = 0, steps: int = STEPS) -> Learned:
    """Fit the mixture to 2,000 of its points, with new noise in every step.

    Args:
        noise_per_point: v, at least 1.
        seed: of the points, the network and the noise.
        steps: of Adam, each on 200 points.
    """
    torch.manual_seed(seed)
    data = mixture().sample((POINTS,))
    noise = MultivariateNormal(data.mean(0), 1.5 * data.T.cov())
    model = Energy()
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(steps):
        batch = data[torch.randint(POINTS, (BATCH,))]
        loss = nce_loss(model, noise, batch, noise.sample((noise_per_point * BATCH,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return _evaluate(model, losses)


def grid() -> Tensor:
    """Return the grid's points (g g, 2), row by row from the bottom left."""
    axis = torch.linspace(-EXTENT, EXTENT, GRID)
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], dim=-1).flatten(0, 1)


@torch.no_grad()
def _evaluate(model: nn.Module, losses: list[float]) -> Learned:
    points, cell = grid(), (2 * EXTENT / (GRID - 1)) ** 2
    density, truth = model(points).exp(), mixture().log_prob(points).exp()
    distance = float((density - truth).abs().sum() * cell / 2)
    return Learned(model, losses, float(density.sum() * cell), distance)


def draw(learned: dict[int, Learned], out: Path) -> None:
    """Plot the true and the learned densities as contours at the same levels."""
    import matplotlib

    matplotlib.use("Agg")  # draws to a file
    from matplotlib import pyplot

    points, axis = grid(), torch.linspace(-EXTENT, EXTENT, GRID)
    titles = {v: f"{v} noise sample{'s' * (v > 1)} per point, distance {m.distance:.3f}" for v, m in learned.items()}
    panels = [("truth, and 500 points", mixture().log_prob(points))]
    with torch.no_grad():
        panels += [(titles[v], model.log_density(points)) for v, model in learned.items()]
    figure, axes = pyplot.subplots(1, len(panels), figsize=(3.6 * len(panels), 4), layout="constrained", sharey=True)
    torch.manual_seed(0)
    axes[0].scatter(*mixture().sample((500,)).T, s=2, color="0.7")
    for panel, (title, values) in zip(axes, panels, strict=True):
        levels = [0.002, 0.01, 0.03, 0.06, 0.1, 0.15]
        panel.contour(axis, axis, values.exp().reshape(GRID, GRID), levels=levels, cmap="viridis")
        panel.set_title(title, fontsize=10)
        panel.set(aspect="equal", xlim=(-5, 5), ylim=(-5, 5))
    figure.savefig(out, dpi=85)
    pyplot.close(figure)


def main() -> None:
    """Parse the command line, learn with 1 and 5 noise samples per point and several seeds, plot the first."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="PNG to write")
    parser.add_argument("--seeds", type=int, default=3, help="number of runs to average")
    options = parser.parse_args()
    learned = {v: [learn(v, seed) for seed in range(options.seeds)] for v in (1, 5)}
    print("| noise samples per point | total variation to the truth, mean (worst) | integral, mean |")
    print("| ---: | ---: | ---: |")
    for v, runs in learned.items():
        distances, integrals = [run.distance for run in runs], [run.integral for run in runs]
        mean = sum(distances) / len(runs)
        print(f"| {v} | {mean:.4f} ({max(distances):.4f}) | {sum(integrals) / len(runs):.4f} |")
    draw({v: runs[0] for v, runs in learned.items()}, options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
