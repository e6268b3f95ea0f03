"""`python -m scripts.reference`: writes docs/openapi.json and the generated pages of docs/reference."""

from __future__ import annotations

from scripts.reference.markdown import ROOT
from scripts.reference.pages import files

if __name__ == "__main__":
    for name, text in files().items():
        (ROOT / name).write_text(text, encoding="utf-8")
