"""`python -m benchmarks.service_profile COLLECTION`: a profile of the loaded service, by thread and library.

py-spy (from PyPI) samples every thread of `lookalike serve` a hundred times a second while wrk (Debian's package) sends
texts or images. A sample counts for the innermost library with a Python frame, including its C code. `of samples` is
the share of samples of active threads; `holds the GIL` is the share of samples with the interpreter's lock.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.encoders import machine
from benchmarks.service import load, lookalike_target
from benchmarks.serving import serving

_FRAME = re.compile(r"^(?P<name>.*) \((?P<file>[^()]*?)(?::\d+)?\)$")
_STANDARD = re.compile(r"(^|/)python3\.\d+/|^<frozen|^[a-z_]+\.py$|^(asyncio|concurrent|json|email|multiprocessing)/")
_THREADS = {"MainThread": "event loop", "device": "encoder", "search": "search", "work": "worker pool"}
_SHOWN = 14


def start_sampling(pid: int, seconds: int, folder: Path, *, gil: bool) -> subprocess.Popen[bytes]:
    """Start py-spy, which writes its stacks to `folder`, one a line."""
    command = ["py-spy", "record", "--pid", str(pid), "--duration", str(seconds), "--rate", "100", "--threads",
               "--format", "raw", "--output", str(folder / "stacks"), *(["--gil"] if gil else [])]  # fmt: skip
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def by_library(stacks: str) -> Counter[tuple[str, str]]:
    """Count samples of (thread, innermost library) in collapsed stacks.

    >>> by_library("thread (77): MainThread;run (uvicorn/server.py:67);f (app/middleware/body_limit.py:9) 3")
    Counter({('event loop', 'app'): 3})
    """
    counts: Counter[tuple[str, str]] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = re.split(r";(?=[^;]+ \()", stack)
        thread = re.sub(r"^thread \([^)]*\):? *", "", frames[0])
        counts[_role(thread), next(_libraries(frames[:0:-1]), "Python itself")] += int(count)
    return counts


def _role(thread: str) -> str:
    for start, role in _THREADS.items():
        if thread.startswith(start):
            return role
    return "other threads"


def _libraries(frames: Sequence[str]) -> Iterator[str]:
    """Yield packages, innermost first; frames of the standard library count for their callers."""
    for frame in frames:
        match = _FRAME.match(frame)
        if match is None or _STANDARD.search(match["file"]):
            continue
        yield re.sub(r"^.*site-packages/", "", match["file"]).split("/")[0]


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--seconds", type=int, default=15, help="of each case")
    options = parser.parse_args(arguments)
    for name, source in (("wrk", "apt install wrk"), ("py-spy", "pip install py-spy")):
        if not shutil.which(name):
            sys.exit(f"{name} is missing: {source}")
    with serving(options.collection) as (port, pid), tempfile.TemporaryDirectory() as temporary:
        folder, target = Path(temporary), lookalike_target(f"http://127.0.0.1:{port}")
        print(machine())
        for kind, clients in (("text", 32), ("image", 16)):
            load(target, kind, clients, 3, folder)
            parts: list[Counter[tuple[str, str]]] = []
            rates: list[float] = []
            for gil in (False, True):
                spy = start_sampling(pid, options.seconds, folder, gil=gil)
                rates.append(load(target, kind, clients, options.seconds + 1, folder)[0])
                if spy.wait():
                    sys.exit("py-spy failed: it needs permission to trace other processes (root, or CAP_SYS_PTRACE)")
                parts.append(by_library((folder / "stacks").read_text()))
            print(f"\n{kind}, {clients} clients: {rates[0]:.0f} requests/s while sampled")
            print("\n| thread | innermost library | of samples | holds the GIL |\n| --- | --- | ---: | ---: |")
            samples, gil_samples = parts
            for key, count in samples.most_common(_SHOWN):
                held = gil_samples[key] / max(1, gil_samples.total())
                print(f"| {key[0]} | {key[1]} | {count / samples.total():.0%} | {held:.0%} |")


if __name__ == "__main__":
    main()
