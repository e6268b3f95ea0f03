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

_PHRASE = re.compile(
    "|".join(rf"(?P<p{i}>\b(?:{words.replace(' ', chr(92) + 's+')})\b)" for i, words in enumerate(PHRASES)),
    re.IGNORECASE,
)
_TERMS = list(PHRASES.values())
_PICTURE = re.compile(r"[\w-]*picture[\w-]*", re.IGNORECASE)
_CODE_SPAN = re.compile(r"`[^`\n]+`")


def findings(name: str, text: str) -> Iterator[str]:
    """Yield a line for each phrase, and for each identifier with `picture`, in a file's text."""
    for match in _PHRASE.finditer(text):
        if text[max(0, match.start() - 1) : match.end() + 1] in PUBLIC_KEYS:
            continue
        term = _TERMS[int(str(match.lastgroup)[1:])]
        yield f"{name}:{_line(text, match.start())}: {match.group()!r}; write: {term}"
    for number, identifier in _identifiers(name, text):
        if "picture" in identifier.lower() and identifier.strip("-") not in PUBLIC_NAMES:
            yield f"{name}:{number}: {identifier!r}; write: image"


def _identifiers(name: str, text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of identifiers: Python's all, others' those that hold `picture`."""
    if name.endswith(".py"):
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NAME:
                yield token.start[0], token.string
    elif name.endswith((".js", ".html", ".css")):
        for match in _PICTURE.finditer(text):
            yield _line(text, match.start()), match.group()
    elif name.endswith(".md"):
        for span in _CODE_SPAN.finditer(text):
            for match in _PICTURE.finditer(span.group()):
                if not span.group()[: match.start()].endswith(("/", "~/")):  # a folder
                    yield _line(text, span.start()), match.group()


def _line(text: str, offset: int) -> int:
    return text.count("\n", 0, offset) + 1


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
