"""`lookalike push`: copies a local collection to a bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.transfer import run_transfer


def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the collection.", show_default=False)],
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Collection in a bucket: s3://BUCKET/KEY.", show_default=False)
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one line of JSON.")] = False,
) -> None:
    """Copy the current version of a collection from a folder to S3-compatible storage.

    Files come first and CURRENT last, so that `lookalike pull` finds a complete version at any time. Files that are
    there with the same size and checksum are not copied again. The bucket keeps the last two versions.
    docs/guides/object-storage.md is the guide.

    Example:  lookalike push products s3://bucket/collections/products
    """
    from indexing.progress import Progress
    from indexing.transfer import push as copy  # imports Arrow: not for `--help`

    run_transfer(lambda: copy(folder, url, Progress(unit="MB")), f"pushed {folder} to {url}", None, as_json)
