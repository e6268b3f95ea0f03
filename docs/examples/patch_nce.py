"""PatchNCE on photographs and their negatives: `python docs/examples/patch_nce.py` plots learned similarities.

CUT (Park, Efros, Zhang and Zhu 2020) requires that each patch of a translated image can be identified with the patch at
the same place of the original. Here the translation is fixed, inverted colours plus noise, and only CUT's small heads
are learned, one for each layer, on frozen features of EfficientNet-Lite0. After training a patch of the negative should
be most similar to its own place in the photograph. The test uses photographs that are not in the training set.

Dimension letters: B images, C channels of a layer, S places, W width of a head.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.transforms.v2.functional import pil_to_tensor

from cli.gallery import write_gallery
from lookalike.encoders.lite.pretrained import load_efficientnet
from training.objectives.patch_nce import patch_nce

SIDE, WIDTH, PLACES, STEPS, HELD_OUT = 224, 64, 64, 400, 8
LAYERS = (1, 2, 3)  # stages of 24, 40 and 80 channels, 56, 28 and 14 places wide


def photographs() -> Tensor:
    """Return the sample gallery, (B, 3, 224, 224) in [0, 1]."""
    with tempfile.TemporaryDirectory() as folder:
        write_gallery(Path(folder))
        files = sorted(path for path in Path(folder).iterdir() if path.suffix in {".png", ".jpg"})
        images = [Image.open(path).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC) for path in files]
    return torch.stack([pil_to_tensor(image) for image in images]) / 255


def negatives(images: Tensor) -> Tensor:
    """Return the images with inverted colours plus noise."""
    return (1 - images + 0.1 * torch.randn_like(images)).clamp(0, 1)


@torch.inference_mode()
def features(images: Tensor) -> list[Tensor]:
    """Return (B, C, H, W) of the frozen network for each layer."""
    network = load_efficientnet()
    x = network.bn1(network.conv_stem(images * 2 - 1))
    outputs = []
    for stage, block in enumerate(network.blocks):
        x = block(x)
        if stage in LAYERS:
            outputs.append(x)
    return [layer.clone() for layer in outputs]


class Heads(nn.ModuleList):
    """CUT's two-layer perceptron for each layer: (B, C, S) -> (B, W, S)."""

    def __init__(self, channels: list[int]) -> None:
        super().__init__(
            [nn.Sequential(nn.Conv1d(c, WIDTH, 1), nn.ReLU(), nn.Conv1d(WIDTH, WIDTH, 1)) for c in channels]
        )

    def forward(self, layers: list[Tensor]) -> list[Tensor]:
        """A list of (B, C, S), one for each layer."""
        return [head(layer) for head, layer in zip(self, layers, strict=True)]


def sample_places(layers: list[Tensor], seed: int) -> list[Tensor]:
    """Sample the same random places of every image: (B, C, H, W) -> (B, C, S)."""
    generator = torch.Generator().manual_seed(seed)
    flat = [layer.flatten(2) for layer in layers]
    return [layer[:, :, torch.randperm(layer.shape[2], generator=generator)[:PLACES]] for layer in flat]


def learn(queries: list[Tensor], keys: list[Tensor], steps: int = STEPS) -> tuple[Heads, list[float]]:
    """Train the heads; return them and the loss of every step.

    Args:
        queries: features of the negatives, (B, C, H, W) for each layer.
        keys: features of the photographs at the same places.
        steps: of Adam.
    """
    torch.manual_seed(0)
    heads = Heads([layer.shape[1] for layer in keys])
    optimizer = torch.optim.Adam(heads.parameters(), lr=2e-3)
    losses = []
    for step in range(steps):
        loss = patch_nce(heads(sample_places(queries, step)), heads(sample_places(keys, step)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return heads, losses


@torch.no_grad()
def accuracy(queries: list[Tensor], keys: list[Tensor]) -> float:
    """Return the share of places (all layers, (B, C, S) each) whose patch is most similar to its own place."""
    hits = []
    for q, k in zip(queries, keys, strict=True):
        cosines = F.normalize(q, dim=1).transpose(1, 2) @ F.normalize(k, dim=1)  # (B, S, S)
        hits.append((cosines.argmax(2) == torch.arange(cosines.shape[2])).float().mean())
    return float(torch.stack(hits).mean())


@torch.no_grad()
def draw(image: Tensor, negative: Tensor, maps: list[tuple[str, Tensor, Tensor]], place: int, out: Path) -> None:
    """Plot a place of the negative, and the similarity of each place of the photograph to it.

    Args:
        image: (3, 224, 224), the photograph.
        negative: its negative.
        maps: title, layer of the negative and layer of the photograph, (C, H, W).
        place: number of the place, row by row.
        out: PNG to write.
    """
    import matplotlib

    matplotlib.use("Agg")  # draws to a file
    from matplotlib import pyplot

    width = maps[0][1].shape[2]
    y, x = ((place // width + 0.5) * SIDE / width, (place % width + 0.5) * SIDE / width)
    figure, axes = pyplot.subplots(1, 2 + len(maps), figsize=(3 * (2 + len(maps)), 3.3), layout="constrained")
    for panel, title, pixels in zip(
        axes, ("negative, and a place in it", "photograph"), (negative, image), strict=False
    ):
        panel.imshow(pixels.permute(1, 2, 0).numpy())
        panel.set_title(title, fontsize=10)
    axes[0].plot(x, y, "o", ms=12, mfc="none", mec="red", mew=2)
    for panel, (title, query, key) in zip(axes[2:], maps, strict=True):
        cosines = F.normalize(key.flatten(1), dim=0).T @ F.normalize(query.flatten(1)[:, place], dim=0)
        panel.imshow(cosines.reshape(key.shape[1:]).numpy(), extent=(0, SIDE, SIDE, 0), cmap="viridis")
        panel.plot(x, y, "o", ms=12, mfc="none", mec="red", mew=2)
        panel.set_title(title, fontsize=10)
    for panel in axes:
        panel.set_axis_off()
    figure.savefig(out, dpi=85)
    pyplot.close(figure)


def main() -> None:
    """Parse the command line, learn, print, plot."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"), help="PNG to write")
    options = parser.parse_args()
    torch.manual_seed(0)
    images = photographs()
    inverted = negatives(images)
    keys, queries = features(images), features(inverted)
    train, test = slice(HELD_OUT, None), slice(HELD_OUT)
    heads, losses = learn([layer[train] for layer in queries], [layer[train] for layer in keys])
    test_queries = sample_places([layer[test] for layer in queries], -1)
    test_keys = sample_places([layer[test] for layer in keys], -1)
    print(f"{HELD_OUT} photographs that are not in the training set, {PLACES} places of each in {len(LAYERS)} layers")
    print(f"own place most similar, frozen features:  {accuracy(test_queries, test_keys):.3f}")
    with torch.no_grad():
        print(f"own place most similar, PatchNCE's heads: {accuracy(heads(test_queries), heads(test_keys)):.3f}")
        query, key = queries[1][4], keys[1][4]
        after = [heads[1](layer.flatten(1)[None])[0].reshape(WIDTH, *layer.shape[1:]) for layer in (query, key)]
    print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f}; by chance it is {torch.tensor(PLACES).log():.2f}")
    titles = ("similarity, frozen features", "similarity, PatchNCE's heads")
    maps = [(titles[0], query, key), (titles[1], *after)]
    draw(images[4], inverted[4], maps, place=28 * 12 + 13, out=options.out)
    print(f"wrote {options.out}")


if __name__ == "__main__":
    main()
