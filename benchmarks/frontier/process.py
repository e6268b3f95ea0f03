"""A system's process and the requests to it: the client of `benchmarks.frontier.worker`."""

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
    """A system can't run; the message has the reason."""


@dataclass(frozen=True)
class Assignment:
    """A system with its settings and folders.

    Attributes:
        system: its name in `SYSTEMS`.
        settings: of building and searching.
        vectors: folder of the vectors.
        folder: of its files; its log is next to it.
        python: interpreter to use; None for this one.
    """

    system: str
    settings: Settings
    vectors: Path
    folder: Path
    python: str | None = None


class Process:
    """A running worker; a context manager.

    Raises:
        Unavailable: its interpreter or its library is missing, or it ended instead of answering.
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
        request = {"system": a.system, "settings": asdict(a.settings)}
        reply = self._send({**request, "vectors": str(a.vectors.resolve()), "folder": str(a.folder.resolve())})
        if "missing" in reply:
            self.close()
            raise Unavailable(reply["missing"])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, do: str, minutes: float | None = None, **request: Any) -> dict[str, Any]:
        """Send a request and return the reply; kill the process if that takes longer than `minutes`."""
        if minutes is None:
            return self._send({"do": do, **request})
        limit = threading.Timer(60 * minutes, self._process.kill)
        limit.start()
        try:
            return self._send({"do": do, **request})
        except Unavailable as error:
            raise Unavailable(f"{error}" if limit.is_alive() else f"not done within {minutes:g} minutes") from error
        finally:
            limit.cancel()

    def close(self) -> None:
        """Close its input, at which it ends, and wait for it."""
        with suppress(BrokenPipeError):  # it did not read the last request
            self._process.__exit__(None, None, None)

    def _send(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended: reading returns nothing
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            self.close()
            lines = self._log.read_text(errors="replace").strip().splitlines() or ["its log is empty"]
            raise Unavailable(f"its process ended: {lines[-1]} (log: {self._log})")
        reply: dict[str, Any] = json.loads(line)
        return reply


def _environment(assignment: Assignment) -> dict[str, str]:
    """Return the worker's environment; another interpreter does not inherit this one's PYTHONPATH."""
    inherited = [] if assignment.python else [path for path in [os.environ.get("PYTHONPATH")] if path]
    modules = os.pathsep.join([str(_ROOT), *inherited])
    return {**threads_environment(assignment.settings.threads), "PYTHONPATH": modules}


def threads_environment(threads: int) -> dict[str, str]:
    """Return an environment for a process whose libraries use this many threads, and load as in the product."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**environment_variables(), **os.environ, **dict.fromkeys(names, str(threads))}
