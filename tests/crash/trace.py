"""System calls of a process, as strace records them, in the order in which they began and ended."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

_CALLS = "pwrite64,write,writev,sendto,sendmsg,fsync,fdatasync,rename,renameat,renameat2,openat"
_LINE = re.compile(r"^(?P<task>\d+) +(?P<rest>.*)$")
_BEGIN = re.compile(r"^(?P<name>\w+)\((?P<arguments>.*)$")
_RESUMED = re.compile(r"^<\.\.\. (?P<name>\w+) resumed>(?P<rest>.*)$")
_PATH = re.compile(r"<([^<>]*)>")
_END_SECONDS = 20.0


@dataclass(frozen=True)
class Call:
    """The beginning or the end of a system call.

    Attributes:
        name: of the call.
        path: of the file or socket that it is about.
        text: the arguments, as strace shows them.
        has_begun: True at its beginning.
        has_ended: True at its end; both where nothing came between.
    """

    name: str
    path: str
    text: str
    has_begun: bool
    has_ended: bool


def strace(command: Sequence[str], trace: Path) -> list[str]:
    """Return a command that runs another one and records its calls; its process id is that of the other one.

    The test is skipped where strace is missing or not permitted.
    """
    if shutil.which("strace") is None:
        pytest.skip("needs strace: apt-get install strace")
    tried = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"strace is not permitted here: {tried.stderr.strip()}")
    return ["strace", "-D", "-f", "-y", "-s", "48", "-e", f"trace={_CALLS}", "-o", str(trace), *command]


def calls(trace: Path, process: int) -> Iterator[Call]:
    """Yield the calls of a process that has ended, and of its threads and children."""
    deadline = time.monotonic() + _END_SECONDS  # strace writes the last lines after the process has ended
    while not re.search(rf"^{process} +\+\+\+ ", trace.read_text(errors="replace"), re.MULTILINE):
        assert time.monotonic() < deadline, "strace did not end"
        time.sleep(0.05)
    begun: dict[str, tuple[str, str]] = {}
    for line in trace.read_text(errors="replace").splitlines():
        if (match := _LINE.match(line)) is None:
            continue
        task, rest = match["task"], match["rest"]
        if resumed := _RESUMED.match(rest):
            name, text = begun.pop(task, (resumed["name"], ""))
            yield Call(name, _path(name, text), text, has_begun=False, has_ended=True)
        elif begin := _BEGIN.match(rest):
            name, text = begin["name"], begin["arguments"]
            is_whole = not text.endswith("<unfinished ...>")
            if not is_whole:
                begun[task] = (name, text)
            yield Call(name, _path(name, text), text, has_begun=True, has_ended=is_whole)


def _path(name: str, text: str) -> str:
    """Return the path of the call's file descriptor, or the paths that are renamed."""
    if name.startswith("rename"):
        return " ".join(re.findall(r'"([^"]*)"', text))
    match = _PATH.search(text)
    return match[1] if match else ""
