"""The process of one system: builds, or opens and answers, as the benchmark asks by lines of JSON.

The first line names the system, its settings and its folders; each line after it is a request, answered by one line on
standard output. Whatever the libraries print goes to standard error. Its imports are those of
`benchmarks.frontier.systems`, so that it also runs in a peer's own environment.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from benchmarks.frontier.systems import SYSTEMS, Missing, Params, Settings, System
from benchmarks.resident import Resident, mapped, peak_resident, resident
from benchmarks.vectors import QUERIES


class Desk:
    """A system and the queries it is asked."""

    def __init__(self, system: str, settings: dict[str, Any], vectors: str, folder: str) -> None:
        self._system: System = SYSTEMS[system](Settings(**settings))
        self._vectors, self._folder = Path(vectors), Path(folder)
        self._queries = np.load(self._vectors / QUERIES)
        self._before = Resident(0, 0)

    def build(self) -> dict[str, Any]:
        """Builds; seconds, those of all cores, the parameters that it chose for itself, bytes of what it wrote."""
        started, computing = time.perf_counter(), time.process_time()
        index = self._system.build(self._vectors, self._folder)
        built, computed = time.perf_counter(), time.process_time() - computing
        chosen = self._system.tune(self._vectors, self._folder)
        return {
            "library": self._system.library,
            "index": index,
            "build_s": built - started,
            "build_cpu_s": computed,
            "tune_s": time.perf_counter() - built,
            "chosen": chosen,
            "index_bytes": sum(path.stat().st_size for path in self._folder.iterdir()),
            "peak_resident": peak_resident(),
        }

    def open(self) -> dict[str, Any]:
        """Opens what was built; memory is counted from here on."""
        self._before = resident()
        self._system.open(self._vectors, self._folder)
        return {"trials": list(self._system.trials())}

    def answer(self, params: Params, count: int, out: str) -> dict[str, Any]:
        """Leaves the rows found for the first `count` queries in a file; queries/s."""
        started = time.perf_counter()
        rows = self._system.search(self._queries[:count], params)
        seconds = time.perf_counter() - started
        np.save(out, rows)
        return {"qps": len(rows) / seconds}

    def clock(self, params: Params, count: int, singles: int, first: int) -> dict[str, Any]:
        """Queries/s of a batch, and the milliseconds of queries one by one, other ones each round."""
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
        """Bytes that the process grew by since before it opened the index, and those that the kernel may take back."""
        grown = resident().since(self._before)
        reclaimable = sum(mapped(path) for path in self._system.reclaimable(self._vectors))
        return {"resident": grown.anonymous + grown.file - reclaimable, "reclaimable": reclaimable}


def main() -> None:
    """Reads requests until there are none."""
    replies = _own_output()
    try:
        desk = Desk(**json.loads(sys.stdin.readline()))
    except Missing as error:
        _reply(replies, {"missing": str(error)})
        return
    _reply(replies, {})
    for line in sys.stdin:
        request = json.loads(line)
        _reply(replies, getattr(desk, request.pop("do"))(**request))


def _own_output() -> TextIO:
    """Standard output for replies alone; what others print there from now on goes to standard error."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return replies


def _reply(replies: TextIO, answer: dict[str, Any]) -> None:
    replies.write(json.dumps(answer) + "\n")
    replies.flush()


if __name__ == "__main__":
    main()
