"""Reports words that the project does not use: `scripts/check_wording.py` exits with 1 where it finds one.

Code, docs and the search page speak plain technical English. Each phrase below has a standard term; an image is called
an image, in identifiers too.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

PHRASES = {
    "mend|mends|mended": "fix, repair, hint",
    "at hand": "available, installed",
    "knows nothing of|know nothing of": "is independent of, does not depend on",
    "is told|are told|was told|were told": "is reported, receives",
    "let in|lets in": "admit, allow",
    "come again": "retry",
    "as its base has it": "@override",
}
PUBLIC_NAMES = frozenset({"training_pictures", "pictures", "PICTURES"})
"""Identifiers that users know: an option, an environment variable, keys in JSON."""
PUBLIC_KEYS = frozenset({'"mend"'})
"""Keys in JSON that are phrases of the list: `lookalike encoders --json`."""
SUFFIXES = {".css", ".html", ".js", ".json", ".md", ".py", ".sh", ".toml", ".yaml", ".yml", ".conf", ""}
EXEMPT = ("scripts/check_wording.py", "tests/unit/test_check_wording.py", "benchmarks/history/", "tests/golden/")

_PHRASE = re.compile("|".join(rf"(?P<p{i}>\b(?:{words})\b)" for i, words in enumerate(PHRASES)), re.IGNORECASE)
_TERMS = list(PHRASES.values())


def findings(name: str, text: str) -> Iterator[str]:
    """Yield a line for each phrase, or identifier with `picture`, in a file's text."""
    for number, line in enumerate(text.splitlines(), start=1):
        for match in _PHRASE.finditer(line):
            if line[match.start() - 1 : match.end() + 1] in PUBLIC_KEYS:
                continue
            term = _TERMS[int(str(match.lastgroup)[1:])]
            yield f"{name}:{number}: {match.group()!r}; write: {term}"
    if name.endswith(".py"):
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME and "picture" in token.string.lower() and token.string not in PUBLIC_NAMES:
                yield f"{name}:{token.start[0]}: {token.string!r}; write: image"


def tracked_files() -> list[str]:
    """Return the paths that git tracks or would add, relative to the repository's root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    return sorted(set(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()))


def main() -> int:
    """Check the repository in the working directory; print the findings and return the exit status."""
    names = [name for name in tracked_files() if Path(name).suffix in SUFFIXES and not name.startswith(EXEMPT)]
    found = [line for name in names if Path(name).is_file() for line in findings(name, Path(name).read_text("utf-8"))]
    print("\n".join(found), end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
