"""`lookalike pull`: copies a collection from a bucket to a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.transfer import run_transfer


def pull(
    url: Annotated[
        str, typer.Argument(metavar="URL", help="Collection in a bucket: s3://BUCKET/KEY.", show_default=False)
    ],
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="Folder of the collection; created if needed.", show_default=False),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one line of JSON.")] = False,
) -> None:
    """Copy the current version of a collection from S3-compatible storage to a folder.

    Every file is compared with its checksum before the version becomes current. A version that is there already is not
    copied again, and an interrupted copy resumes. A service that watches the folder swaps to the new version.
    docs/guides/object-storage.md is the guide.

    Example:  lookalike pull s3://bucket/collections/products products

    Example:  AWS_ENDPOINT_URL=http://minio:9000 lookalike pull s3://bucket/products products
    """
    from indexing.progress import Progress
    from indexing.transfer import pull as copy  # imports Arrow: not for `--help`

    run_transfer(lambda: copy(url, folder, Progress(unit="MB")), f"pulled {url} into {folder}", str(folder), as_json)
