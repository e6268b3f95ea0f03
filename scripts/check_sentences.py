"""Reports pages whose sentences are too long: `scripts/check_sentences.py [FILE...]` exits with 1 where it finds one.

Checked are the README, CONTRIBUTING and every page of docs/. The 90th percentile of a page's sentences may have at most
30 words. Code blocks, tables and headings are not sentences; a list item is a paragraph of its own.
"""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path

MAX_WORDS_P90 = 30

_NOT_PROSE = re.compile(r"^(```|~~~).*?^\1[^\n]*$|<!--.*?-->|\A---\n.*?\n---$", re.DOTALL | re.MULTILINE)
_PARAGRAPH_END = re.compile(r"\n\s*\n|\n(?=\s*(?:[-*+]|\d+\.)\s)")
_MARKER = re.compile(r"^\s*(?:>|[-*+]|\d+\.)\s+")
_LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_SENTENCE_END = re.compile(r"(?<=[.!?])[)\"*_]*\s+(?=[\"(*_`]*[A-Z`\d])")
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|et al|vs|etc|eq|No)\.", re.IGNORECASE)


def sentences(markdown: str) -> list[str]:
    """Return the sentences of a page's paragraphs and list items."""
    found = []
    for block in re.split(r"^#.*$|^\s*\|.*$|^(?:!!!|===).*$", _NOT_PROSE.sub("\n\n", markdown), flags=re.MULTILINE):
        for paragraph in _PARAGRAPH_END.split(block):
            text = _LINK.sub(r"\1", _MARKER.sub("", paragraph.strip()))
            text = _ABBREVIATION.sub(r"\1", re.sub(r"`[^`]*`", "`code`", text))
            found += [sentence for sentence in _SENTENCE_END.split(" ".join(text.split())) if sentence]
    return found


def words(sentence: str) -> int:
    """Return the number of words; a code span counts as one."""
    return sum(any(character.isalnum() for character in word) for word in sentence.split())


def p90(lengths: list[int]) -> int:
    """Return the 90th percentile by the nearest rank; 0 for no sentences."""
    return sorted(lengths)[math.ceil(0.9 * len(lengths)) - 1] if lengths else 0


def main(names: list[str]) -> int:
    """Check the files named, or all pages; with names, print each file's figures and longest sentences."""
    pages = [Path(name) for name in names] or [Path("README.md"), Path("CONTRIBUTING.md"), *Path("docs").rglob("*.md")]
    status = 0
    for page in sorted(pages):
        found = sentences(page.read_text("utf-8"))
        figure = p90([words(sentence) for sentence in found])
        if names:
            print(f"{page}: {len(found)} sentences, p90 {figure} words; the longest:")
            for sentence in sorted(found, key=words, reverse=True)[:5]:
                print(f"  {words(sentence)}: {sentence}")
        if figure > MAX_WORDS_P90:
            status = 1
            print(f"{page}: the 90th percentile is {figure} words a sentence; it must be at most {MAX_WORDS_P90}")
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
