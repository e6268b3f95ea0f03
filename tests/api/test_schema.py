"""Generated requests: no 5xx, and no status or response that the OpenAPI document lacks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from tests.api.small_collection import build_collection
from tests.api.test_serve import serving

EXAMPLES = int(os.environ.get("LOOKALIKE_FUZZ_EXAMPLES", "15"))
"""For each operation; `LOOKALIKE_FUZZ_EXAMPLES=1000 make test ARGS="tests/api/test_schema.py"` runs more."""
KEY = "admin-0123456789abcdef"
DOCUMENT = json.loads((Path(__file__).resolve().parents[2] / "docs/openapi.json").read_text())
OPERATIONS = [(path, method) for path, item in DOCUMENT["paths"].items() for method in item]


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    root = build_collection(tmp_path_factory.mktemp("fuzzed") / "gallery")
    with serving(root, LOOKALIKE_URLS="true", LOOKALIKE_KEYS=f"admin:{KEY}") as (_, client):
        yield schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")


@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=[f"{method} {path}" for path, method in OPERATIONS])
def test_responses_follow_the_openapi_document(document: schemathesis.BaseSchema, path: str, method: str) -> None:
    @given(case=document[path][method.upper()].as_strategy())
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate],
    )
    def check(case: schemathesis.Case) -> None:
        # What a schema allows may still be no id of the collection, or no image: a refusal of it is no fault. The
        # key is shown beside generated ones, so that those count for nothing: test_access.py looks after keys.
        case.call_and_validate(headers={"X-API-Key": KEY}, excluded_checks=[positive_data_acceptance, ignored_auth])

    check()
