"""Reports links of pages in docs/ to files outside of it, which the site can't contain; exits with 1 for any."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

_LINK = re.compile(r"\]\(<?(?![a-z]+:|#)([^)\s#>]+)")
_CODE = re.compile(r"^( *)```.*?^\1```|`[^`\n]*`", re.DOTALL | re.MULTILINE)


def links_outside(docs: Path) -> Iterator[str]:
    """Yield a line for each link that leaves the folder `docs`."""
    root = docs.resolve()
    for page in sorted(docs.rglob("*.md")):
        for target in _LINK.findall(_CODE.sub("", page.read_text("utf-8"))):
            if not (page.parent / target).resolve().is_relative_to(root):
                yield f"{page}: {target} is outside of {docs}; name the file instead: `path` in the repository"


if __name__ == "__main__":
    found = list(links_outside(Path("docs")))
    print("\n".join(found), end="\n" if found else "")
    sys.exit(bool(found))
