"""`python -m benchmarks` (`make bench`): every benchmark in turn, with the settings that RESULTS.md quotes.

Options go to none of them: run a single one for that, `python -m benchmarks.encoders --help`.
"""

from __future__ import annotations

import subprocess
import sys

RUNS = (
    ("encoders", "--encoder", "lite"),
    ("indexing", "--encoder", "lite"),
    ("index", "--n", "500000"),
)


def main() -> int:
    """Runs them one after another; the first that fails ends it."""
    for name, *arguments in RUNS:
        print(f"\n== python -m benchmarks.{name} {' '.join(arguments)}", flush=True)
        if status := subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=False).returncode:
            return status
    return 0


if __name__ == "__main__":
    sys.exit(main())
