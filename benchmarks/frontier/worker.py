"""The process of one system, which builds, opens and searches on requests in JSON lines.

The first line names the system, its settings and its folders. Each later line is a request, answered by one line on
standard output. What libraries print goes to standard error. Its imports are those of `benchmarks.frontier.systems`, so
that it also runs in the environment of another system.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from benchmarks.frontier.systems import SYSTEMS, LibraryMissing, Params, Settings, System
from benchmarks.resident import Resident, mapped, peak_resident, resident
from benchmarks.vectors import QUERIES_FILE


class Worker:
    """A system and its queries; each public method handles one kind of request."""

    def __init__(self, system: str, settings: dict[str, Any], vectors: str, folder: str) -> None:
        self._system: System = SYSTEMS[system](Settings(**settings))
        self._vectors, self._folder = Path(vectors), Path(folder)
        self._queries = np.load(self._vectors / QUERIES_FILE)
        self._before = Resident(0, 0)

    def build(self) -> dict[str, Any]:
        """Build; return time, CPU time, parameters that the system chose, and bytes written."""
        started, cpu_started = time.perf_counter(), time.process_time()
        index = self._system.build(self._vectors, self._folder)
        built, cpu_seconds = time.perf_counter(), time.process_time() - cpu_started
        chosen = self._system.tune(self._vectors, self._folder)
        return {
            "library": self._system.library,
            "index": index,
            "build_s": built - started,
            "build_cpu_s": cpu_seconds,
            "tune_s": time.perf_counter() - built,
            "chosen": chosen,
            "index_bytes": sum(path.stat().st_size for path in self._folder.iterdir()),
            "peak_resident": peak_resident(),
        }

    def open(self) -> dict[str, Any]:
        """Open the index, and return the parameters to try; memory is measured from here on."""
        self._before = resident()
        self._system.open(self._vectors, self._folder)
        return {"param_grid": list(self._system.param_grid())}

    def search(self, params: Params, count: int, out: str) -> dict[str, Any]:
        """Write the rows found for the first `count` queries to a file; return queries/s."""
        started = time.perf_counter()
        rows = self._system.search(self._queries[:count], params)
        seconds = time.perf_counter() - started
        np.save(out, rows)
        return {"qps": len(rows) / seconds}

    def time(self, params: Params, count: int, singles: int, first: int) -> dict[str, Any]:
        """Return queries/s of a batch, and milliseconds of single queries, from query number `first` on."""
        self._system.search(self._queries[-10:], params)
        started = time.perf_counter()
        self._system.search(self._queries[:count], params)
        seconds = time.perf_counter() - started
        return {
            "qps": min(count, len(self._queries)) / seconds,
            "singles": [self._single((first + i) % len(self._queries), params) for i in range(singles)],
        }

    def _single(self, i: int, params: Params) -> float:
        started = time.perf_counter()
        self._system.search(self._queries[i : i + 1], params)
        return 1e3 * (time.perf_counter() - started)

    def memory(self) -> dict[str, Any]:
        """Return the growth in bytes since before the index was opened, without and of reclaimable pages."""
        growth = resident().since(self._before)
        reclaimable = sum(mapped(path) for path in self._system.reclaimable(self._vectors))
        return {"resident": growth.anonymous + growth.file - reclaimable, "reclaimable": reclaimable}


def main() -> None:
    """Answer requests until standard input ends."""
    replies = _redirect_output()
    try:
        worker = Worker(**json.loads(sys.stdin.readline()))
    except LibraryMissing as error:
        _reply(replies, {"missing": str(error)})
        return
    _reply(replies, {})
    for line in sys.stdin:
        request = json.loads(line)
        _reply(replies, getattr(worker, request.pop("do"))(**request))


def _redirect_output() -> TextIO:
    """Redirect standard output to standard error; return the former, for replies alone."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return replies


def _reply(replies: TextIO, answer: dict[str, Any]) -> None:
    replies.write(json.dumps(answer) + "\n")
    replies.flush()


if __name__ == "__main__":
    main()
