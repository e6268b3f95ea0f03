"""`python -m benchmarks` (`make bench`): encoders, indexing, index, metadata and training, one after the other.

It takes no options; single benchmarks do, see `python -m benchmarks.encoders --help`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.indexing import default_source

RUNS = (
    ("encoders", "--encoder", "lite"),
    ("indexing", "--encoder", "lite"),
    ("index", "--n", "500000"),
    ("metadata",),
    ("triplets",),
    ("gradcache",),
    ("training_step",),
)


def main() -> int:
    """Run all benchmarks until one fails; return its exit status."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if not Path(source := default_source()).is_file():
        print(
            f"no photographs at {source}: set LOOKALIKE_TEST_DATA to the folder that holds flickr8k/", file=sys.stderr
        )
        return 1
    for name, *arguments in RUNS:
        print(f"\n== python -m benchmarks.{name} {' '.join(arguments)}", flush=True)
        if status := subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=False).returncode:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
