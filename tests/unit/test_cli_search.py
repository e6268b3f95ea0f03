"""`lookalike search` over nine photographs and the fake encoder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

import lookalike
from cli.main import app
from cli.search_output import table
from lookalike import errors
from lookalike.types import Hit, SearchResult
from tests.api.small_collection import ITEMS, PHOTOGRAPHS, build_collection

CAT, ROCKET = "animals/cat.png", "space/rocket.jpg"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_collection(tmp_path_factory.mktemp("cli-search") / "photographs")


def image(item_id: str) -> str:
    return str(PHOTOGRAPHS / ITEMS[item_id][0])


def run(folder: Path, *arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, ["search", str(folder), *arguments], input=stdin)


def response(folder: Path, *arguments: str) -> dict[str, Any]:
    done = run(folder, *arguments, "--json")
    assert done.exit_code == 0, done.output
    body: dict[str, Any] = json.loads(done.stdout)
    return body


def ids(body: dict[str, Any]) -> list[str]:
    return [result["id"] for result in body["results"]]


PARTS: list[tuple[list[str], list[Any]]] = [
    (["--text", "red", "--and-image", image(CAT)], [{"image": image(CAT)}, {"text": "red"}]),
    (["--image", image(CAT), "--image", image(ROCKET)], [{"image": image(CAT)}, {"image": image(ROCKET)}]),
    (["--id", CAT, "--and-text", "red", "--text", "blue"], [{"id": CAT}, {"text": "red"}, {"text": "blue"}]),
    (["--id", CAT, "--not", "red"], [{"id": CAT}, {"text": "red", "weight": -1}]),
    (["--text", "red", "--not-image", image(CAT)], [{"text": "red"}, {"image": image(CAT), "weight": -1}]),
    (["--query", json.dumps([{"id": CAT}, {"text": "red", "weight": 2}])], [{"id": CAT}, {"text": "red", "weight": 2}]),
    (["--query", '"red"'], [{"text": "red"}]),
]


@pytest.mark.parametrize(("arguments", "query"), PARTS, ids=[" ".join(arguments)[:30] for arguments, _ in PARTS])
def test_parts_make_one_query(folder: Path, arguments: list[str], query: list[Any]) -> None:
    with lookalike.open_collection(folder) as collection:
        expected = [(hit.id, pytest.approx(hit.score, abs=1e-6)) for hit in collection.search(query, limit=4)]
    results = response(folder, *arguments, "--limit", "4")["results"]
    assert [(result["id"], result["score"]) for result in results] == expected


def test_json_has_the_members_of_the_http_api(folder: Path) -> None:
    body = response(folder, "--text", "red", "--limit", "1")
    assert list(body) == ["results", "no_match", "truncated_tokens", "took_ms", "collection", "version", "encoder"]
    assert list(body["results"][0]) == ["id", "score", "probability", "metadata"]
    options = ("--group-by", "height", "--deduplicate", "0.9", "--embeddings")
    result = response(folder, "--text", "red", *options)["results"][0]
    assert list(result)[4:] == ["group", "duplicates", "embedding"]
    assert (result["group"], len(result["embedding"])) == (result["metadata"]["height"], 13)
    scaled = response(folder, "--query", json.dumps({"embedding": [2.0] + [0.0] * 12}))
    assert scaled["warnings"] == ["query[0].embedding has norm 2; it was scaled to 1"]


def test_options_select_results(folder: Path) -> None:
    everything = response(folder, "--text", "red", "--limit", "9")["results"]
    assert response(folder, "--text", "red", "--limit", "2", "--offset", "3")["results"] == everything[3:5]
    score = str(everything[2]["score"] - 1e-5)
    assert response(folder, "--text", "red", "--min-score", score)["results"] == everything[:3]
    single, double = (
        [result["group"] for result in response(folder, "--text", "red", "--group-by", "height", *size)["results"]]
        for size in ([], ["--group-size", "2"])
    )
    assert len(set(single)) == len(single) < len(double)


def test_table_counts_ranks_from_the_offset(folder: Path) -> None:
    lines = run(folder, "--text", "red", "--limit", "2", "--offset", "3").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["4", "5", "2"]


def test_table_shows_probability_and_near_identical_items() -> None:
    hit = Hit("a.png", 0.5, {"caption": "a\ncat"}, 0, probability=0.124)
    hits = [hit, replace(hit, probability=None, duplicates=2)]
    assert table(SearchResult(hits), 1.0, 0, None).splitlines() == [
        "  1   0.5000   12.4%  a.png  a cat",
        "  2   0.5000  a.png  a cat  (+2 near-identical)",
        "2 items in 1.0 ms",
    ]


def test_no_match_is_reported_on_stderr(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lookalike.local_search import LocalSearcher

    monkeypatch.setattr(LocalSearcher, "search", lambda *_: SearchResult([], no_match=True))
    done = run(folder, "--text", "red")
    assert done.stderr == "note: nothing in this collection matches well\n"
    assert done.stdout.startswith("0 items")


def test_queries_of_a_file_are_a_line_each(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "queries.txt").write_text("\ufeffred\nblue\r\n", encoding="utf-8")
    done = run(folder, "--queries", str(tmp_path / "queries.txt"), "--limit", "1")
    assert done.exit_code == 0
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["query"] for line in lines] == ["red", "blue"]
    assert [ids(line) for line in lines] == [
        ids(response(folder, "--text", t, "--limit", "1")) for t in ("red", "blue")
    ]


def test_failing_query_of_a_file_costs_no_other(folder: Path) -> None:
    done = run(folder, "--queries", "-", "--limit", "1", stdin="red\n\nblue")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.get("code") for line in lines] == [None, "text_empty", None]
    assert lines[1] == {"query": "", "code": "text_empty", "detail": "the text is empty; describe what to search for"}
    assert done.exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a query is missing"),
        (["--query", "red", "--text", "red"], "stand alone"),
        (["--queries", "-", "--id", CAT], "stand alone"),
        (["--query", "{"], "--query is not JSON"),
        (["--text", "red", "--offset", "-1"], "--offset"),
    ],
)
def test_wrong_arguments_exit_with_2(folder: Path, arguments: list[str], message: str) -> None:
    done = run(folder, *arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--query", '{"txt": "red"}'], errors.QueryError, "unknown key 'txt'; did you mean 'text'"),
        (["--query", "3"], errors.QueryError, "--query: a query is a text, a part"),
        (["--query", '{"text": 3}'], errors.QueryError, "--query: text is 3; it must be a text"),
        (["--image", "no/such.png"], errors.SourceNotFound, "no/such.png can't be read"),
        (["--id", "nowhere"], errors.UnknownItem, "nowhere"),
        (["--text", "red", "--not", "red"], errors.QueryError, "cancel each other out"),
        (["--text", "red", "--and-text", "blue", "--min-probability", "0.5"], errors.QueryError, "combined"),
        (["--text", "red", "--group-by", "colour"], errors.QueryError, "'colour'"),
        (["--queries", "no/such.txt"], FileNotFoundError, "no/such.txt"),
    ],
)
def test_wrong_queries_raise(folder: Path, arguments: list[str], error: type[Exception], message: str) -> None:
    done = run(folder, *arguments)
    assert isinstance(done.exception, error)
    assert message in str(done.exception)
