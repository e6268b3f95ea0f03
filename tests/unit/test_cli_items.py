"""`lookalike fields` and `lookalike items` over nine photographs."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from app.api.schemas import FacetsResponse
from cli.items import _value
from cli.main import app
from cli.tables import bars, column_names, one_line
from lookalike.errors import LookalikeError
from tests.api.small_collection import ITEMS, build_collection

ANIMALS = '{"must": [{"field": "path", "prefix": "animals/"}]}'


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(build_collection(tmp_path_factory.mktemp("cli") / "photographs"))


def run(*arguments: str) -> str:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)
    if isinstance(result.exception, LookalikeError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def test_fields_are_a_table_with_values_and_ranges(collection: str) -> None:
    lines = run("fields", collection).splitlines()
    assert [line.split()[0] for line in lines] == ["column", "id", "path", "caption", "width", "height", "9"]
    assert re.match(r"id +text +9  all distinct: animals/cat\.png, ", lines[1])
    assert re.match(r"caption +text +8  all distinct: a cat, a cup of coffee, ", lines[3])
    assert re.match(r"width +integer +9  \d+ to \d+  \|[ ▁▂▃▄▅▆▇█]+\|$", lines[4])
    assert lines[-1] == "9 items"


def test_fields_count_what_passes_the_filter(collection: str) -> None:
    assert run("fields", collection, "--filter", ANIMALS).splitlines()[-1] == "2 items of 9"


def test_fields_as_json_are_those_of_the_http_api(collection: str) -> None:
    response = json.loads(run("fields", collection, "--json", "--filter", ANIMALS))
    FacetsResponse.model_validate(response, extra="forbid")
    assert (response["count"], response["total"], response["collection"]) == (2, 9, "photographs")


def test_items_show_the_sorted_column_and_the_caption(collection: str) -> None:
    lines = run("items", collection, "--sort", "-width", "--limit", "3", "--offset", "1").splitlines()
    widths = [int(re.split(r"  +", line)[1]) for line in lines[:-1]]
    assert widths == sorted(widths, reverse=True)
    assert lines[-1] == "2 to 4 of 9 items"


def test_items_are_listed_in_the_order_of_their_rows(collection: str) -> None:
    lines = run("items", collection, "--fields", "").splitlines()
    assert lines == [*ITEMS, "1 to 9 of 9 items"]
    assert run("items", collection, "--filter", ANIMALS, "--offset", "5") == "no item after the first 5: there are 2\n"
    nothing = '{"must": [{"field": "id", "equals": "x"}]}'
    assert run("items", collection, "--filter", nothing) == "no items\n"


def test_items_as_json_have_the_chosen_columns(collection: str) -> None:
    response = json.loads(run("items", collection, "--filter", ANIMALS, "--fields", "width", "--json"))
    assert [item["id"] for item in response["items"]] == list(ITEMS)[:2]
    assert {tuple(item["metadata"]) for item in response["items"]} == {("width",)}
    assert (response["offset"], response["total"]) == (0, 2)
    whole = json.loads(run("items", collection, "--limit", "1", "--json"))
    assert list(whole["items"][0]["metadata"]) == ["path", "caption", "width", "height"]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["items", "--sort", "widht"], "sort: unknown metadata column 'widht'; did you mean 'width'"),
        (["items", "--fields", "widht"], "fields: unknown metadata column 'widht'; did you mean 'width'"),
        (["items", "--filter", "{"], "JSON"),
        (["fields", "--filter", '{"most": []}'], r"filter\.most: unknown key"),
    ],
)
def test_wrong_options_name_the_value(collection: str, arguments: list[str], match: str) -> None:
    with pytest.raises(LookalikeError, match=match):
        run(arguments[0], collection, *arguments[1:])


def test_parts_of_tables() -> None:
    assert bars([0, 1, 50, 100]) == " ▁▄█"
    assert bars([]) == ""
    assert bars([0, 0]) == "  "
    assert column_names(" a, b") == ("a", "b")
    assert column_names(" ") == ()
    assert column_names(None) is None
    assert one_line("a\n  b") == "a b"


def test_field_of_a_record_is_shown() -> None:
    record = {"exif": {"iso": 100, "by": None}, "a.b": 3}
    assert [_value(record, name) for name in ("exif.iso", "exif.by", "exif.by.x", "x", "a.b")] == [100, "", "", "", 3]
