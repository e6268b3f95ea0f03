"""The sentence check counts the words of sentences, not of code, tables and headings."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import load_script


@pytest.fixture(scope="module")
def check() -> ModuleType:
    return load_script("check_sentences")


PAGE = """# A heading. With two sentences

One sentence of `some code here` and a [link](page.md#part). Another one, e.g. this!

- An item
- Another item that
  goes on

| a table. | is no sentence. |
| --- | --- |

```sh
lookalike serve  # A comment. Not a sentence.
```

Figures such as 3.14 don't end it (as here). The last?
"""


def test_sentences_are_split_without_code_and_tables(check: ModuleType) -> None:
    assert check.sentences(PAGE) == [
        "One sentence of `code` and a link.",
        "Another one, e.g this!",
        "An item",
        "Another item that goes on",
        "Figures such as 3.14 don't end it (as here).",
        "The last?",
    ]


def test_code_span_is_one_word_and_a_dash_none(check: ModuleType) -> None:
    assert check.words("The `code` — of 2 words") == 5


def test_page_with_long_sentences_fails(check: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("Short. " * 9 + "Word" + " word" * 31 + ".")
    assert check.main([str(page)]) == 0  # one in ten
    page.write_text("Short. " * 8 + ("Word" + " word" * 31 + ". ") * 2)
    assert check.main([str(page)]) == 1
    assert "the 90th percentile is 32 words" in capsys.readouterr().out
