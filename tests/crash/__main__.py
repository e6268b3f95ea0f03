"""`python -m tests.crash`: kill a service under load, hundreds of times; see `crasher`."""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from tests.crash.crasher import Figures, crash
from tests.crash.failure import Failure


def main() -> None:
    """Run the crash test and print its figures; end with status 1 if anything was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="number of kills, at least (default 200)")
    parser.add_argument("--seed", type=int, default=1, help="of the choices (default 1)")
    parser.add_argument("--processes", type=int, default=2, help="collections that are tested at a time (default 2)")
    parser.add_argument("--verbose", action="store_true", help="print each life of a service")
    parser.add_argument("--without-commit", action="store_true", help="lose every write: the run must fail")
    given = parser.parse_args()
    share = -(-given.kills // given.processes)
    total = Figures()
    with ProcessPoolExecutor(given.processes, multiprocessing.get_context("spawn")) as pool:
        runs = [
            pool.submit(crash, seed, share, given.verbose, given.without_commit)
            for seed in range(given.seed, given.seed + given.processes)
        ]
        for run in runs:
            try:
                total = total + run.result()
            except Failure as failure:
                sys.exit(f"FAILED: {failure}")
    print(total.table())
    if not (total.published and total.in_compaction):
        sys.exit("FAILED: no version was published, or no service was killed during a compaction")


if __name__ == "__main__":
    main()
