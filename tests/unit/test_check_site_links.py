"""The check of links that leave docs/."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "check_site_links.py"


def _check(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    page = folder / "docs" / "guides" / "page.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text)
    return subprocess.run([sys.executable, SCRIPT], cwd=folder, capture_output=True, text=True, check=False)


def test_links_within_docs_and_to_the_web_pass(tmp_path: Path) -> None:
    text = (
        "[a](other.md) [b](../index.md#part) [c](#here) [d](https://example.com/../x)\n\n```md\n[e](../../x.py)\n```\n"
    )
    assert _check(tmp_path, text).returncode == 0


def test_link_to_file_outside_docs_fails(tmp_path: Path) -> None:
    checked = _check(tmp_path, "See [the code](../../app/main.py#L3) and ![an image](../../x.png).\n")
    assert checked.returncode == 1
    assert checked.stdout.splitlines() == [
        f"docs/guides/page.md: {target} is outside of docs; name the file instead: `path` in the repository"
        for target in ("../../app/main.py", "../../x.png")
    ]
