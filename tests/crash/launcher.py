"""Starts `lookalike serve` again and again: a process that has imported everything forks one for each line of JSON.

A fork runs the same command as `python -m cli.main serve`, without the seconds that its imports take. It has its own
process group, in which its compactions run.

    python -m tests.crash.launcher [--without-commit]
    < {"arguments": ["serve", ...], "environment": {...}, "log": "file"}
    > 4711
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from functools import partial
from typing import Any

_IMPORTS = ("cli.main", "app.main", "app.logs", "app.server.server", "lookalike.bootstrap", "lookalike.collection")
_IMPORTS += ("lookalike.stores.exact", "lookalike.encoders.fake", "pandas", "httpx", "PIL.WebPImagePlugin")
_CHECK_SECONDS, _RETRY_SECONDS = 0.1, 0.5


def main() -> None:
    """Fork a service for each line of standard input, and print its process id."""
    for name in _IMPORTS:
        importlib.import_module(name)
    _compact_sooner()
    if "--without-commit" in sys.argv:
        _leave_out_commits()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended services need no wait
    print("ready", flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        process = os.fork()
        if not process:
            _serve(order)
        print(process, flush=True)


def _serve(order: dict[str, Any]) -> None:
    """Become the service."""
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        nothing, log = os.open(os.devnull, os.O_RDWR), os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for source, target in ((nothing, 0), (nothing, 1), (log, 2)):
            os.dup2(source, target)
        os.environ.update(order["environment"])
        sys.argv = ["lookalike", *order["arguments"]]
        importlib.import_module("cli.main").main()
    except SystemExit as ended:
        status = int(ended.code or 0)
    finally:
        os._exit(status)


def _compact_sooner() -> None:
    """Look for work every tenth of a second, and retry soon: a service lives only seconds here."""
    compaction: Any = importlib.import_module("app.collections.compaction")
    hosted: Any = importlib.import_module("app.collections.hosted")
    hosted.Compactor = partial(compaction.Compactor, check_seconds=_CHECK_SECONDS)
    compaction._FIRST_RETRY_SECONDS = _RETRY_SECONDS


def _leave_out_commits() -> None:
    """Let a write be lost with the process, and the number that would show it: the null control of the crash test."""
    log: Any = importlib.import_module("lookalike.writes.log")
    log.WriteLog._commit = lambda self: self._connection.execute("ROLLBACK")
    log.WriteLog._write_head = lambda self: None


if __name__ == "__main__":
    main()
