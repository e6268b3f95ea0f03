"""Starting a system's process and asking it: the benchmark's end of `benchmarks.frontier.worker`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks.frontier.systems import Settings
from lookalike.stores.faiss.environment import environment_variables

_ROOT = Path(__file__).resolve().parents[2]


class Unavailable(Exception):
    """A system can't take part; the message says why."""


@dataclass(frozen=True)
class Assignment:
    """One system's part.

    Attributes:
        system: its name in `SYSTEMS`.
        settings: what it is built with.
        vectors: folder of the vectors.
        folder: where it keeps its files, and its log.
        python: another interpreter than this one.
    """

    system: str
    settings: Settings
    vectors: Path
    folder: Path
    python: str | None = None


class Process:
    """A running worker. Use it in a `with`.

    Raises:
        Unavailable: its interpreter or its library is missing, or it ended where it should have answered.
    """

    def __init__(self, assignment: Assignment) -> None:
        self._assignment = assignment
        assignment.folder.parent.mkdir(parents=True, exist_ok=True)
        self._log = assignment.folder.with_suffix(".log")
        with self._log.open("w") as log:
            try:
                self._process = subprocess.Popen(
                    [assignment.python or sys.executable, "-m", "benchmarks.frontier.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=_environment(assignment),
                )
            except OSError as error:
                raise Unavailable(f"{assignment.python} can't be run: {error.strerror}") from error
        self.pid = self._process.pid

    def __enter__(self) -> Process:
        a = self._assignment
        given = {"system": a.system, "settings": asdict(a.settings)}
        hello = self._say({**given, "vectors": str(a.vectors.resolve()), "folder": str(a.folder.resolve())})
        if "missing" in hello:
            self.close()
            raise Unavailable(hello["missing"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, do: str, minutes: float | None = None, **request: Any) -> dict[str, Any]:
        """One request and its answer; the process is killed where that takes longer than `minutes`."""
        if minutes is None:
            return self._say({"do": do, **request})
        limit = threading.Timer(60 * minutes, self._process.kill)
        limit.start()
        try:
            return self._say({"do": do, **request})
        except Unavailable as error:
            raise Unavailable(f"{error}" if limit.is_alive() else f"not done within {minutes:g} minutes") from error
        finally:
            limit.cancel()

    def close(self) -> None:
        """Lets it end; it does when there is nothing more to read."""
        with suppress(BrokenPipeError):  # what it was asked last, it never read
            self._process.__exit__(None, None, None)

    def _say(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended, which reading will find
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self.close()
            said = self._log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
            raise Unavailable(f"its process ended: {said[-1]} (all of it: {self._log})")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _environment(assignment: Assignment) -> dict[str, str]:
    """Threads, and this repository first among the modules; another interpreter gets nothing of this one's modules."""
    inherited = [] if assignment.python else [path for path in [os.environ.get("PYTHONPATH")] if path]
    modules = os.pathsep.join([str(_ROOT), *inherited])
    return {**threads_environment(assignment.settings.threads), "PYTHONPATH": modules}


def threads_environment(threads: int) -> dict[str, str]:
    """An environment for a process whose libraries use so many threads and are loaded as ours are, peers too."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**environment_variables(), **os.environ, **dict.fromkeys(names, str(threads))}
