"""`lookalike gallery`: the sample photographs, copied out of installed packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from shutil import copyfile
from typing import Annotated

import typer

from lookalike.errors import SourceNotFound

# The packages' other images are test patterns and plots.
SAMPLES = {
    "skimage/data": """
        astronaut.png brick.png camera.png cell.png chelsea.png clock_motion.png coffee.png coins.png grass.png
        gravel.png horse.png hubble_deep_field.jpg ihc.png logo.png microaneurysms.png moon.png motorcycle_left.png
        motorcycle_right.png page.png retina.jpg rocket.jpg text.png
    """,
    "sklearn/datasets/images": "china.jpg flower.jpg",
}


def gallery(
    out: Annotated[Path, typer.Argument(help="Folder to copy the photographs to; created if it does not exist.")],
) -> None:
    """Copy the sample gallery: 24 photographs from scikit-image and scikit-learn, with their names as captions.

    Example:  lookalike gallery photos && lookalike index photos --out my-collection
    """
    count = write_gallery(out)
    typer.echo(f"{count} photographs with captions in {out}")


def write_gallery(out: Path) -> int:
    """Copy each photograph and write its caption beside it; existing files stay as they are.

    Returns:
        Number of photographs in the gallery.

    Raises:
        SourceNotFound: scikit-image or scikit-learn is not installed.
    """
    out.mkdir(parents=True, exist_ok=True)
    sources = [_package_folder(folder) / name for folder, names in SAMPLES.items() for name in names.split()]
    for source in sources:
        target, caption = out / source.name, out / f"{source.stem}.txt"
        if not target.exists():
            copyfile(source, target)
        if not caption.exists():
            caption.write_text(source.stem.replace("_", " ") + "\n", encoding="utf-8")
    return len(sources)


def _package_folder(folder: str) -> Path:
    package, _, rest = folder.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise SourceNotFound(
            f"the sample gallery needs the package {package!r}: pip install '.[demo]' in Lookalike's source folder"
        )
    return Path(spec.origin).parent / rest
