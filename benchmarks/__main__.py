"""`python -m benchmarks` (`make bench`): every benchmark in turn, with the settings that RESULTS.md quotes.

It takes no options: run a single one for that, `python -m benchmarks.encoders --help`.
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
    """Runs them one after another; the first that fails ends it."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    if not Path(source := default_source()).is_file():
        print(f"no photographs at {source}: name the folder of flickr8k/ by LOOKALIKE_TEST_DATA", file=sys.stderr)
        return 1
    for name, *arguments in RUNS:
        print(f"\n== python -m benchmarks.{name} {' '.join(arguments)}", flush=True)
        if status := subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=False).returncode:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
