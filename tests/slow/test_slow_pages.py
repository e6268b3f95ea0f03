"""The commands of the documentation's pages that train an encoder, executed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.test_docs import SLOW_PAGES, run_page


@pytest.mark.timeout(1800)  # training takes minutes where others use the cores
@pytest.mark.parametrize("page", SLOW_PAGES)
def test_page_code_runs(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    run_page(page, tmp_path, request)
