"""`import lookalike` and `import indexing` as a program uses them, over nine photographs and the fake encoder."""

from __future__ import annotations

import inspect
import io
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import indexing
import lookalike
from cli.index import index as index_command
from lookalike import errors
from lookalike.bootstrap import open_searcher
from lookalike.encoders import registry
from lookalike.encoders.fake import FakeEncoder
from lookalike.filters import Filter
from lookalike.row_search import SearchOptions
from lookalike.search import Embedding, compare
from tests.api.small_collection import ITEMS, PHOTOGRAPHS, WITHOUT_THUMBNAIL, build_collection, photograph
from tests.conftest import REPOSITORY

CAT, ROCKET = "animals/cat.png", "space/rocket.jpg"
HEAVY = ["torch", "faiss", "openvino", "pyarrow", "pandas", "numpy", "PIL", "pydantic", "open_clip", "timm"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_collection(tmp_path_factory.mktemp("python-api") / "photographs")


@pytest.fixture
def collection(folder: Path) -> Iterator[lookalike.SearchableCollection]:
    with lookalike.open_collection(folder) as opened:
        yield opened


def ids(hits: list[lookalike.Hit]) -> list[str]:
    return [hit.id for hit in hits]


def image_file(item_id: str) -> Path:
    return PHOTOGRAPHS / ITEMS[item_id][0]


def pixels(item_id: str) -> np.ndarray:
    return np.asarray(Image.open(image_file(item_id)).convert("RGB"))


# Importing


def test_import_loads_no_library() -> None:
    code = f"""if True:
        import json, sys
        import indexing, lookalike
        assert lookalike.errors.UnknownItem.code == "unknown_item"
        assert lookalike.__version__
        assert {{"open_collection", "load_encoder", "SearchableCollection"}} <= set(dir(lookalike))
        assert {{"index", "IndexSummary"}} <= set(dir(indexing))
        print(json.dumps([name for name in {HEAVY} if name in sys.modules]))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_opening_a_collection_imports_neither_torch_nor_openvino(folder: Path) -> None:
    code = f"""if True:
        import json, sys, lookalike
        with lookalike.open_collection({str(folder)!r}, device="cpu") as collection:
            assert collection.search(id={CAT!r}, limit=1)[0].id == {CAT!r}
        print(json.dumps([name for name in ("torch", "openvino", "open_clip", "timm") if name in sys.modules]))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.mark.parametrize("package", [lookalike, indexing])
def test_every_public_name_exists(package: Any) -> None:
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'open_colection'"):
        _ = package.open_colection


@pytest.mark.parametrize("package", [lookalike, indexing])
def test_packages_are_marked_as_typed(package: Any) -> None:
    assert (Path(package.__file__).parent / "py.typed").is_file()


def test_page_documents_every_name_and_parameter() -> None:
    page = (REPOSITORY / "docs" / "reference" / "python-api.md").read_text("utf-8")
    functions = [lookalike.open_collection, lookalike.load_encoder, indexing.index]
    classes: list[type] = [lookalike.SearchableCollection, lookalike.LoadedEncoder]
    records: list[type] = [lookalike.Hit, lookalike.Similarity, lookalike.CollectionItem, lookalike.Limits]
    records += [lookalike.Facet, lookalike.ValueCount, lookalike.Histogram]
    methods = {name: member for kind in classes for name, member in vars(kind).items() if not name.startswith("_")}
    functions += [member for member in methods.values() if inspect.isfunction(member)]
    parameters = {name for function in functions for name in inspect.signature(function).parameters} - {"self"}
    attributes = {field.name for record in [*records, indexing.IndexSummary] for field in fields(record)}
    names = {*lookalike.__all__, *indexing.__all__, *methods, *parameters, *attributes}
    assert sorted(name for name in names if not re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", page)) == []


# Searching


def test_collection_describes_itself(collection: lookalike.SearchableCollection, folder: Path) -> None:
    assert (collection.name, collection.encoder_name, collection.path) == ("photographs", "fake", folder)
    assert collection.version == (folder / "CURRENT").read_text().strip()
    assert len(collection) == len(ITEMS)
    assert repr(collection) == "<SearchableCollection 'photographs': 9 items, encoder 'fake'>"


@pytest.mark.parametrize(
    "image",
    [
        str(image_file(CAT)),
        image_file(CAT),
        photograph(CAT),
        Image.open(image_file(CAT)),
        Image.open(image_file(CAT)).convert("RGBA"),
        pixels(CAT),
        pixels(CAT)[::-1][::-1],
    ],
    ids=["str", "path", "bytes", "pillow", "pillow-rgba", "array", "array-view"],
)
def test_every_kind_of_image_finds_the_same(collection: lookalike.SearchableCollection, image: Any) -> None:
    hits = collection.search(image=image, limit=3)
    assert hits == collection.search(image=photograph(CAT), limit=3)
    assert hits[0].id == CAT
    assert hits[0].score == pytest.approx(1.0, abs=1e-3)
    assert hits[0].metadata["caption"] == "a cat"


def test_path_of_an_image_may_begin_at_home(
    collection: lookalike.SearchableCollection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cat.png").write_bytes(photograph(CAT))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert collection.search(image="~/cat.png")[0].id == CAT


def test_rotated_photograph_is_turned_upright(collection: lookalike.SearchableCollection, tmp_path: Path) -> None:
    lying, exif = Image.open(image_file(ROCKET)).transpose(Image.Transpose.ROTATE_90), Image.Exif()
    exif[0x0112] = 6
    lying.save(tmp_path / "lying.png", exif=exif)
    by_path = collection.search(image=tmp_path / "lying.png", limit=1)[0]
    by_pillow = collection.search(image=Image.open(tmp_path / "lying.png"), limit=1)[0]
    assert by_path == by_pillow
    assert (by_path.id, by_path.score) == (ROCKET, pytest.approx(1.0, abs=1e-3))


def test_searches_equal_those_of_the_searcher(collection: lookalike.SearchableCollection, folder: Path) -> None:
    searcher, options = open_searcher(folder), SearchOptions(limit=4)
    assert collection.search(text=" red ", limit=4) == searcher.search_text("red", options).hits
    assert collection.search(image=photograph(CAT), limit=4) == searcher.search_image(photograph(CAT), options).hits
    assert collection.search(id=CAT, limit=4) == searcher.search_item(CAT, options).hits


def test_filter_limits_what_is_found(collection: lookalike.SearchableCollection, folder: Path) -> None:
    condition = {"must": [{"field": "caption", "prefix": "a "}], "must_not": [{"field": "id", "equals": CAT}]}
    hits = collection.search(id=CAT, filter=condition)
    assert 0 < len(hits) < len(ITEMS)
    assert CAT not in ids(hits)
    options = SearchOptions(filter=Filter.model_validate(condition))
    assert hits == open_searcher(folder).search_item(CAT, options).hits


def test_fields_choose_the_metadata(collection: lookalike.SearchableCollection) -> None:
    hits = collection.search(text="red", fields=iter(["width", "caption"]))
    assert hits
    assert all(hit.metadata.keys() <= {"width", "caption"} and "width" in hit.metadata for hit in hits)
    assert collection.search(text="red", fields=[], limit=1)[0].metadata == {}
    with pytest.raises(errors.QueryError, match="'widht'; did you mean 'width'"):
        collection.search(id=CAT, fields=["widht"])
    for wrong in ("width", [3]):
        with pytest.raises(TypeError, match="fields"):
            collection.search(id=CAT, fields=wrong)  # type: ignore[arg-type]


def test_texts_are_normalized_in_every_call(collection: lookalike.SearchableCollection) -> None:
    odd, plain = "\uff32\uff45\uff44\u200b\x00 \n blue", "red blue"
    assert collection.search(text=odd) == collection.search(text=plain)
    assert collection.similarity({"text": odd}, {"text": plain}).cosine == pytest.approx(1.0)
    encoder = lookalike.load_encoder("fake")
    np.testing.assert_array_equal(encoder.encode_texts([odd]), encoder.encode_texts([plain]))


def test_similarity_has_the_truncated_tokens(collection: lookalike.SearchableCollection) -> None:
    assert collection.similarity({"text": "red " * 40}, {"id": CAT}).truncated_tokens == (8, 0)


def test_exact_and_params_reach_the_index() -> None:
    golden = Path(__file__).resolve().parents[1] / "golden" / "format-1-faiss"
    with lookalike.open_collection(golden, device="cpu") as collection:
        first = next(collection.items())
        assert collection.search(id=first.id, exact=True, limit=1)[0].id == first.id
        assert collection.search(id=first.id, params={"candidates": 20}, limit=1)[0].id == first.id
        with pytest.raises(errors.QueryError, match="no search parameter 'nprob'"):
            collection.search(id=first.id, params={"nprob": 3})


def test_hit_prints_a_short_score(collection: lookalike.SearchableCollection) -> None:
    (hit,) = collection.search(id=WITHOUT_THUMBNAIL, limit=1)
    assert repr(hit).startswith("Hit(id='no thumbnail', score=1.0000, metadata={'path': ")


@pytest.mark.parametrize(
    ("query", "error", "message"),
    [
        ({"text": " "}, errors.TextEmpty, "empty"),
        ({"text": "x" * 1_001}, errors.TextTooLong, "1,001 characters"),
        ({"id": "nowhere"}, errors.UnknownItem, "'nowhere'"),
        ({"id": CAT, "limit": 0}, errors.InvalidLimit, "limit is 0"),
        ({"id": CAT, "limit": 1_001}, errors.InvalidLimit, "limit is 1001"),
        ({"id": CAT, "params": {"candidates": 20_000}}, errors.QueryError, "candidates is 20000"),
        ({"id": CAT, "filter": {"must": [{"field": "colour", "equals": 1}]}}, errors.FilterInvalid, "'colour'"),
        ({"id": CAT, "filter": {"must": [{"field": "width", "is": 1}]}}, errors.FilterInvalid, "filter.must.0.is"),
        ({"image": b""}, errors.ImageUndecodable, "zero bytes"),
        ({"image": b"text"}, errors.ImageUnsupported, "accepted format"),
        ({"image": "no/such/cat.jpg"}, errors.SourceNotFound, "no/such/cat.jpg can't be read"),
        ({"image": "/"}, errors.SourceNotFound, "/ is not an image file"),
        ({"image": __file__}, errors.ImageUnsupported, "test_python_api.py: not an image"),
        ({"image": np.zeros((4, 4), np.uint8)}, errors.ImageUnsupported, r"shape \(4, 4\)"),
        ({"image": np.zeros((4, 4, 3))}, errors.ImageUnsupported, "float64"),
        ({"image": np.zeros((0, 4, 3), np.uint8)}, errors.ImageUndecodable, "4 x 0 pixels"),
        ({"image": np.broadcast_to(np.uint8(0), (8_001, 8_000, 3))}, errors.ImageTooLarge, "8000 x 8001"),
        ({"image": Image.new("L", (8_001, 8_000))}, errors.ImageTooLarge, "8001 x 8000"),
        ({"image": Image.open(io.BytesIO(photograph(CAT)[:9_000]))}, errors.ImageUndecodable, "Pillow image"),
        ({"image": 3}, TypeError, "not int"),
        ({"image": "cat\0.png"}, errors.SourceNotFound, "is not a path: embedded null"),
        ({"image": "cat" * 100}, errors.SourceNotFound, "too long"),
        ({"text": "a \ud800"}, errors.QueryError, r"not valid Unicode: '\\ud800' at position 2"),
        ({"text": b"red"}, TypeError, "text must be a str, not bytes"),
        ({"id": 3}, TypeError, "id must be a str, not int"),
        ({"id": CAT, "limit": "3"}, TypeError, "str"),
        ({}, TypeError, "exactly one of query, text, image and id; it was called with 0"),
        ({"text": "red", "id": CAT}, TypeError, "called with 2"),
        ({"query": "red", "text": "red"}, TypeError, "called with 2"),
        ({"query": 3}, TypeError, "not int"),
        ({"query": []}, errors.QueryError, "a list of 0 parts; a query has 1 to 32"),
        ({"query": [{"id": CAT}] * 33}, errors.QueryError, "a list of 33 parts"),
        ({"query": ["red", "blue"]}, TypeError, r"query\[0\] is 'red'; a part is a dictionary"),
        ({"query": {"txt": "red"}}, errors.QueryError, "query: unknown key 'txt'; did you mean 'text'"),
        ({"query": {"url": "http://127.0.0.1/"}}, errors.QueryError, "unknown key 'url'"),
        ({"query": [{"text": "red", "id": CAT}]}, errors.QueryError, r"query\[0\]: .*it has text and id"),
        ({"query": [{"id": CAT}, {"weight": 2}]}, errors.QueryError, r"query\[1\]: .*it has none"),
        ({"query": {"id": CAT, "weight": "2"}}, TypeError, "weight must be a number, not str"),
        ({"query": {"id": CAT, "weight": float("nan")}}, errors.QueryError, "weight is nan; it must be a finite"),
        ({"query": [{"id": CAT, "weight": 0}]}, errors.QueryError, "all weights of the query are 0"),
        ({"query": [{"id": CAT}, {"id": CAT, "weight": -1}]}, errors.QueryError, "cancel each other out"),
        ({"query": {"embedding": [1.0] * 12}}, errors.QueryError, "has 12 numbers; the encoder's embeddings have 13"),
        ({"query": {"embedding": [np.nan] * 13}}, errors.QueryError, r"query\[0\].embedding\[0\] is nan"),
        ({"query": {"embedding": np.zeros(13)}}, errors.QueryError, "has norm 0"),
        ({"query": {"embedding": "red"}}, errors.QueryError, "is no list of numbers"),
        ({"query": [{"id": CAT}, {"id": ROCKET}], "min_probability": 0.5}, errors.QueryError, "the query is combined"),
        ({"id": CAT, "offset": -1}, errors.QueryError, "offset is -1"),
        ({"id": CAT, "offset": 9_995}, errors.QueryError, "offset is 9995; .* at most 10,000"),
        ({"id": CAT, "min_score": 2}, errors.QueryError, "min_score is 2"),
        ({"id": CAT, "group_by": "colour"}, errors.QueryError, "group_by: .*'colour'"),
        ({"id": CAT, "group_size": 2}, errors.QueryError, "group_size is 2"),
        ({"id": CAT, "deduplicate": 0}, errors.QueryError, "deduplicate is 0"),
    ],
)
def test_wrong_queries_raise(
    collection: lookalike.SearchableCollection, query: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        collection.search(**query)


def test_own_limits_apply(folder: Path) -> None:
    with lookalike.open_collection(folder, limits=lookalike.Limits(results=2, text=4, pixels=1_000)) as collection:
        with pytest.raises(errors.InvalidLimit, match="between 1 and 2"):
            collection.search(text="red", limit=3)
        with pytest.raises(errors.TextTooLong):
            collection.search(text="green", limit=1)
        with pytest.raises(errors.ImageTooLarge, match="over the limit of 1,000"):
            collection.search(image=photograph(CAT), limit=1)


# Queries of several parts


def test_one_part_equals_the_short_form(collection: lookalike.SearchableCollection) -> None:
    forms: list[tuple[Any, dict[str, Any]]] = [
        ("red", {"text": "red"}),
        ({"text": "red", "weight": 0.25}, {"text": "red"}),
        ([{"image": image_file(CAT)}], {"image": image_file(CAT)}),
        ({"id": CAT, "image": None}, {"id": CAT}),
    ]
    for query, short in forms:
        found = collection.search(query, limit=4)
        assert found == collection.search(**short, limit=4)
        assert (found.no_match, found.warnings, found.truncated_tokens) == (None, [], 0)


def test_score_is_the_cosine_with_the_weighted_sum(collection: lookalike.SearchableCollection) -> None:
    encoder = lookalike.load_encoder("fake")
    (image,) = encoder.encode_images([photograph(CAT)])
    (text,) = encoder.encode_texts(["red"])
    (item,) = encoder.encode_images([photograph(ROCKET)])
    total = image - 0.5 * text + 2 * item
    hits = collection.search(
        [{"image": photograph(CAT)}, {"text": "red", "weight": -0.5}, {"embedding": item, "weight": np.float32(2)}],
        limit=len(ITEMS),
        embeddings=True,
    )
    for hit in hits:
        assert hit.embedding is not None
        assert hit.score == pytest.approx(float(hit.embedding @ total / np.linalg.norm(total)), abs=1e-3)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_negative_part_alone_finds_the_farthest(collection: lookalike.SearchableCollection) -> None:
    assert collection.search({"id": CAT, "weight": -1}, limit=len(ITEMS))[-1].id == CAT


def test_embedding_of_another_norm_is_scaled_and_reported(collection: lookalike.SearchableCollection) -> None:
    (hit,) = collection.search(id=CAT, limit=1, embeddings=True)
    assert hit.embedding is not None
    found = collection.search({"embedding": hit.embedding}, limit=3)
    assert (ids(found), found.warnings) == (ids(collection.search(id=CAT, limit=3)), [])
    scaled = collection.search({"embedding": (3 * hit.embedding).tolist()}, limit=3)
    assert (ids(scaled), scaled.warnings) == (ids(found), ["query[0].embedding has norm 3; it was scaled to 1"])


def test_items_and_embeddings_need_no_encoder(tmp_path: Path) -> None:
    spec = replace(FakeEncoder.spec, name="folder:/no/such/encoder")
    with lookalike.open_collection(build_collection(tmp_path / "moved", spec)) as collection:
        vector = [1.0] + [0.0] * 12
        assert collection.search([{"id": CAT}, {"embedding": vector, "weight": 0.1}], limit=1)[0].id == CAT
        found = collection.search_batch([{"id": CAT}, "red"], limit=1)
        assert isinstance(found[0], lookalike.SearchResults)
        assert isinstance(found[1], errors.EncoderError)


def test_pages_and_thresholds_select_results(collection: lookalike.SearchableCollection) -> None:
    everything = collection.search("red", limit=len(ITEMS))
    assert collection.search("red", limit=3, offset=2) == everything[2:5]
    assert collection.search("red", min_score=everything[3].score) == everything[:4]
    grouped = collection.search("red", limit=len(ITEMS), group_by="height", group_size=1)
    assert len({hit.group for hit in grouped}) == len(grouped) < len(everything)
    (only,) = collection.search("red", deduplicate=0.001, limit=1)
    assert only.duplicates > 0
    assert collection.search("red", deduplicate=True) == collection.search("red", deduplicate=0.93)


def test_batch_equals_single_searches(collection: lookalike.SearchableCollection) -> None:
    queries: list[Any] = [
        "red",
        {"id": CAT},
        [{"image": photograph(ROCKET)}, {"text": "blue", "weight": -1}],
        {"text": "green", "weight": -1},
        {"image": image_file(CAT)},
    ] * 60  # more queries than are prepared at once, more texts than are encoded at once
    found = collection.search_batch(iter(queries), limit=2, fields=["width"])
    assert found == [collection.search(query, limit=2, fields=["width"]) for query in queries[:5]] * 60
    assert collection.search_batch([]) == []


def test_failing_query_of_a_batch_costs_no_other(collection: lookalike.SearchableCollection) -> None:
    queries: list[Any] = [
        "red",
        "",
        {"id": "nowhere"},
        [{"image": b"text"}, {"text": "red"}],
        {"image": 3},
        7,
        [{"id": CAT, "weight": 0}],
        {"id": CAT},
    ]
    first, *failed, last = collection.search_batch(queries, limit=1)
    assert [type(error).__name__ for error in failed] == [
        "TextEmpty", "UnknownItem", "ImageUnsupported", "TypeError", "TypeError", "QueryError"
    ]  # fmt: skip
    assert [first, last] == [collection.search("red", limit=1), collection.search(id=CAT, limit=1)]


def test_wrong_options_of_a_batch(collection: lookalike.SearchableCollection) -> None:
    (error,) = collection.search_batch(["red"], limit=0)
    assert isinstance(error, errors.InvalidLimit)
    with pytest.raises(errors.FilterInvalid):
        collection.search_batch(["red"], filter={"must": [{"field": "colour", "equals": 1}]})
    with pytest.raises(TypeError, match="limt"):
        collection.search_batch(["red"], limt=3)  # type: ignore[call-arg]
    for single in ("red", {"text": "red"}):
        with pytest.raises(TypeError, match="put the one into a list"):
            collection.search_batch(single)  # type: ignore[arg-type]


# Comparing


def test_similarity_compares_texts_images_and_items(collection: lookalike.SearchableCollection) -> None:
    encoder = lookalike.load_encoder("fake")
    image, text = encoder.encode_images([photograph(CAT)])[0], encoder.encode_texts(["red"])[0]
    expected = compare(Embedding(image, "image"), Embedding(text, "text"), FakeEncoder.spec)
    assert collection.similarity({"image": photograph(CAT)}, {"text": "red"}) == expected
    same = collection.similarity({"id": CAT}, {"image": image_file(CAT)})
    assert same.cosine == pytest.approx(1.0, abs=1e-3)
    assert same.similar
    assert not collection.similarity({"text": "red"}, {"text": "blue"}, threshold=0).similar


@pytest.mark.parametrize(
    ("side", "error", "message"),
    [
        ("a cat", TypeError, "side b must be a dictionary .*not 'a cat'"),
        (photograph(CAT), TypeError, "side b must be a dictionary"),
        ({}, TypeError, "one of the keys text, image and id"),
        ({"text": "a", "id": CAT}, TypeError, "one of the keys"),
        ({"url": "http://127.0.0.1/"}, TypeError, "one of the keys"),
        ({"text": None}, TypeError, "text must be a str, not NoneType"),
        ({"text": ""}, errors.TextEmpty, "empty"),
        ({"id": "nowhere"}, errors.UnknownItem, "nowhere"),
        ({"image": b"GIF8"}, errors.ImageUndecodable, "truncated"),
    ],
)
def test_wrong_sides_raise(
    collection: lookalike.SearchableCollection, side: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        collection.similarity({"id": CAT}, side)


@pytest.mark.parametrize("threshold", [-0.1, 2.1, float("nan")])
def test_threshold_out_of_range_is_rejected(collection: lookalike.SearchableCollection, threshold: float) -> None:
    with pytest.raises(errors.QueryError, match="between 0 and 2"):
        collection.similarity({"id": CAT}, {"id": CAT}, threshold=threshold)


# Items


def test_items_are_all_of_them_in_order(collection: lookalike.SearchableCollection) -> None:
    items = list(collection.items())
    assert [item.id for item in items] == list(ITEMS)
    assert items[0] == collection.item(CAT)
    assert items[0].metadata == {"path": CAT, "caption": "a cat", "width": 451, "height": 300}


def test_items_are_read_in_parts(collection: lookalike.SearchableCollection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lookalike.api._ITEMS_PER_READ", 4)
    assert [item.id for item in collection.items()] == list(ITEMS)
    items = collection.items()
    next(items)
    collection.close()
    with pytest.raises(ValueError, match="closed"):
        list(items)


def test_items_are_filtered_and_sorted(collection: lookalike.SearchableCollection) -> None:
    condition = {"must": [{"field": "caption", "prefix": "a"}]}
    found = list(collection.items(condition, "-width"))
    assert [item.metadata["width"] for item in found] == sorted((i.metadata["width"] for i in found), reverse=True)
    assert {item.id for item in found} == {name for name, (_, caption) in ITEMS.items() if (caption or "")[:1] == "a"}
    assert collection.count(condition) == len(found) < collection.count() == len(ITEMS)
    with pytest.raises(errors.QueryError, match="sort: unknown metadata column 'widht'; did you mean 'width'"):
        collection.items(sort="widht")
    with pytest.raises(errors.FilterInvalid, match=r"filter\.most"):
        collection.items({"most": []})
    with pytest.raises(TypeError, match="sort must be a str, not int"):
        collection.items(sort=3)  # type: ignore[arg-type]


def test_fields_and_facets_describe_columns(collection: lookalike.SearchableCollection) -> None:
    fields = {field.name: field for field in collection.fields()}
    assert list(fields) == ["id", "path", "caption", "width", "height"]
    assert (fields["caption"].type, fields["caption"].count) == ("text", len(ITEMS) - 1)
    condition = {"must": [{"field": "id", "equals": CAT}]}
    (width, caption) = collection.facets(condition, ["width", "caption"], bins=2)
    assert (width.count, width.minimum, width.maximum) == (1, 451, 451)
    assert width.histogram == lookalike.Histogram([400, 500], [1])
    assert caption.values == [lookalike.ValueCount("a cat", 1)]
    with pytest.raises(errors.QueryError, match="bins is 1"):
        collection.facets(bins=1)
    with pytest.raises(TypeError, match="fields"):
        collection.facets(fields="width")


def test_thumbnail_is_a_jpeg_or_none(collection: lookalike.SearchableCollection) -> None:
    data = collection.thumbnail(CAT)
    assert data is not None
    assert max(Image.open(io.BytesIO(data)).size) == 256
    assert collection.thumbnail(WITHOUT_THUMBNAIL) is None


@pytest.mark.parametrize("call", ["item", "thumbnail"])
def test_unknown_item_raises(collection: lookalike.SearchableCollection, call: str) -> None:
    with pytest.raises(errors.UnknownItem, match="nowhere"):
        getattr(collection, call)("nowhere")
    with pytest.raises(TypeError, match="id must be a str"):
        getattr(collection, call)(1)


# Opening and closing


CALLS: dict[str, Callable[[lookalike.SearchableCollection], object]] = {
    "search by id": lambda collection: collection.search(id=CAT),
    "search by text": lambda collection: collection.search(text="red"),
    "similarity": lambda collection: collection.similarity({"id": CAT}, {"id": CAT}),
    "items": lambda collection: collection.items(),
    "count": lambda collection: collection.count(),
    "fields": lambda collection: collection.fields(),
    "facets": lambda collection: collection.facets(),
    "item": lambda collection: collection.item(CAT),
    "thumbnail": lambda collection: collection.thumbnail(CAT),
    "len": len,
    "with": lambda collection: collection.__enter__(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_closed_collection_raises(
    collection: lookalike.SearchableCollection, call: Callable[[lookalike.SearchableCollection], object]
) -> None:
    call(collection)
    collection.close()
    collection.close()
    with pytest.raises(ValueError, match="the collection 'photographs' is closed"):
        call(collection)
    assert collection.closed
    assert repr(collection).endswith("closed>")


def test_missing_encoder_does_not_prevent_searching_by_item(tmp_path: Path) -> None:
    spec = replace(FakeEncoder.spec, name="folder:/no/such/encoder")
    with lookalike.open_collection(build_collection(tmp_path / "moved", spec)) as collection:
        assert collection.search(id=CAT, limit=1)[0].id == CAT
        with pytest.raises(errors.EncoderError, match="/no/such/encoder"):
            collection.search(text="red")
    with lookalike.open_collection(tmp_path / "moved", encoder="fake") as collection:
        assert collection.search(image=photograph(CAT), limit=1)[0].id == CAT


def test_other_encoder_is_rejected_by_the_first_text(tmp_path: Path) -> None:
    folder = build_collection(tmp_path / "other", replace(FakeEncoder.spec, weights="f" * 64))
    with (
        lookalike.open_collection(folder) as collection,
        pytest.raises(errors.EncoderMismatch, match="was made by encoder"),
    ):
        collection.search(text="red")


def test_checksums_are_verified_unless_refused(tmp_path: Path) -> None:
    folder = build_collection(tmp_path / "damaged")
    (thumbnails,) = folder.glob("versions/*/metadata.parquet")
    thumbnails.write_bytes(thumbnails.read_bytes()[:-1] + b"?")
    with pytest.raises(errors.ChecksumMismatch):
        lookalike.open_collection(folder)
    assert len(lookalike.open_collection(folder, verify=False)) == len(ITEMS)


def test_wrong_folder_and_wrong_options_are_rejected(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(errors.CollectionNotFound, match="lookalike index"):
        lookalike.open_collection(str(tmp_path))
    with pytest.raises(TypeError, match=r"a lookalike\.Limits, not int"):
        lookalike.open_collection(folder, limits=5)  # type: ignore[arg-type]
    for option in ({"device": "gpu"}, {"engine": "jax"}, {"precision": "int8"}, {"threads": 0}):
        with pytest.raises(errors.EncoderError):
            lookalike.open_collection(folder, **option)


def test_threads_share_a_collection_and_load_one_encoder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, running = [], threading.Lock()

    class SingleThreadEncoder(FakeEncoder):
        def encode_images(self, batch: np.ndarray) -> np.ndarray:
            assert running.acquire(blocking=False), "two threads are in the encoder"
            try:
                return super().encode_images(batch)
            finally:
                running.release()

    def load(name: str, options: object) -> FakeEncoder:
        loaded.append(name)
        return SingleThreadEncoder()

    monkeypatch.setattr(registry, "load_encoder", load)
    shared = Image.open(image_file(CAT))
    queries: list[dict[str, Any]] = [{"text": "red"}, {"image": shared}, {"id": CAT}, {"image": photograph(ROCKET)}]
    with lookalike.open_collection(folder) as collection:
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(lambda query: collection.search(**query), queries * 8))
        assert results == [collection.search(**query) for query in queries] * 8
    assert loaded == ["fake"]


# Encoding


def test_encoder_takes_every_kind_of_image_in_order() -> None:
    encoder = lookalike.load_encoder("fake")
    assert (encoder.name, encoder.dim, encoder.supports_text) == ("fake", 13, True)
    assert (encoder.languages, encoder.limits) == (("en",), "Good for colours; not for anything else.")
    assert repr(encoder) == "<LoadedEncoder 'fake': dim 13>"
    opened = Image.open(image_file(CAT))
    kinds = [image_file(CAT), str(image_file(CAT)), photograph(CAT), opened, opened, pixels(CAT)]
    vectors = encoder.encode_images(kinds)
    assert (vectors.shape, vectors.dtype) == ((6, 13), np.float32)
    np.testing.assert_array_equal(vectors, np.repeat(vectors[:1], 6, axis=0))
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


def test_encoder_takes_any_number_of_images() -> None:
    encoder = lookalike.load_encoder("fake")
    arrays = np.random.default_rng(0).integers(0, 256, (150, 8, 8, 3), np.uint8)
    vectors = encoder.encode_images(array for array in arrays)
    assert vectors.shape == (150, 13)
    np.testing.assert_array_equal(vectors[149:], encoder.encode_images([arrays[149]]))
    np.testing.assert_array_equal(vectors, encoder.encode_images(arrays))
    for none in (encoder.encode_images([]), encoder.encode_texts([])):
        assert (none.shape, none.dtype) == ((0, 13), np.float32)


def test_encoder_takes_texts() -> None:
    encoder = lookalike.load_encoder("fake")
    vectors = encoder.encode_texts(iter(["red", "blue"]))
    assert (vectors.shape, vectors.dtype) == ((2, 13), np.float32)
    np.testing.assert_array_equal(vectors[1:], encoder.encode_texts(("blue",)))
    red = encoder.encode_images([np.full((8, 8, 3), (255, 0, 0), np.uint8)])
    np.testing.assert_allclose((vectors @ red.T)[0], 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        ([photograph(CAT)] * 70 + [b"GIF8"], errors.ImageUndecodable, "^image 70: "),
        ([photograph(CAT), __file__], errors.ImageUnsupported, "^image 1: .*test_python_api.py: not an image"),
        ([photograph(CAT), Path("nowhere.png")], errors.SourceNotFound, "^image 1: nowhere.png can't be read"),
        ([photograph(CAT), None], TypeError, "^image 1: an image is a path"),
        ([np.zeros((4, 4, 4), np.uint8)], errors.ImageUnsupported, r"^image 0: an array of shape \(4, 4, 4\)"),
        ([photograph(CAT), "cat\0.png"], errors.SourceNotFound, "^image 1: .*is not a path"),
        (pixels(CAT), TypeError, "into a list"),
        (Image.new("RGB", (8, 8)), TypeError, "into a list"),
        ("cat.png", TypeError, r"into a list: \['cat.png'\]"),
        (Path("cat.png"), TypeError, "into a list"),
        (photograph(CAT), TypeError, "into a list"),
    ],
)
def test_wrong_images_are_named(images: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lookalike.load_encoder("fake").encode_images(images)


def test_larger_images_than_allowed_are_named() -> None:
    with pytest.raises(errors.ImageTooLarge, match=r"^image 0: image of 451 x 300 pixels"):
        lookalike.load_encoder("fake").encode_images([photograph(CAT)], max_pixels=100)


def test_wrong_texts_are_rejected() -> None:
    encoder = lookalike.load_encoder("fake")
    with pytest.raises(TypeError, match=r"into a list: \['red'\]"):
        encoder.encode_texts("red")
    with pytest.raises(TypeError, match=r"texts\[1\] must be a str, not int"):
        encoder.encode_texts(["red", 3])  # type: ignore[list-item]
    with pytest.raises(errors.QueryError, match="not valid Unicode"):
        encoder.encode_texts(["red", "\udc80"])


def test_encoder_without_text_tower_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeEncoder, "spec", replace(FakeEncoder.spec, text=False, text_hint="install the extra"))
    encoder = lookalike.load_encoder("fake")
    assert not encoder.supports_text
    with pytest.raises(errors.TextUnsupported, match="install the extra"):
        encoder.encode_texts(["red"])


def test_unknown_encoder_is_rejected() -> None:
    with pytest.raises(TypeError, match="name must be a str, not NoneType"):
        lookalike.load_encoder(None)  # type: ignore[arg-type]
    with pytest.raises(errors.UnknownEncoder, match="'lit'"):
        lookalike.load_encoder("lit")
    with pytest.raises(errors.EncoderError, match="unknown device 'gpu'"):
        lookalike.load_encoder("lite", device="gpu")


# Indexing


def photographs(folder: Path, *item_ids: str) -> Path:
    folder.mkdir()
    for item_id in item_ids:
        (folder / image_file(item_id).name).write_bytes(photograph(item_id))
    return folder


def test_index_takes_one_source_or_several(tmp_path: Path) -> None:
    cats, others = photographs(tmp_path / "cats", CAT), photographs(tmp_path / "others", ROCKET, "cup")
    out = tmp_path / "out"
    summary = indexing.index(cats, out, encoder="fake")
    assert isinstance(summary, indexing.IndexSummary)
    assert (summary.seen, summary.indexed, summary.encoded, summary.encoder) == (1, 1, 1, "fake")
    summary = indexing.index([cats, f"more={others}"], str(out))
    assert (summary.indexed, summary.encoded, summary.reused) == (3, 2, 1)
    assert indexing.index((str(cats), f"more={others}"), out).unchanged
    with lookalike.open_collection(out) as collection:
        assert sorted(item.id for item in collection.items()) == ["chelsea.png", "more/coins.png", "more/rocket.jpg"]
        assert collection.search(image=photograph(CAT), limit=1)[0].id == "chelsea.png"


def test_open_collection_stays_on_its_version(tmp_path: Path) -> None:
    source, out = photographs(tmp_path / "source", CAT, ROCKET), tmp_path / "out"
    indexing.index(source, out, encoder="fake")
    with lookalike.open_collection(out) as collection:
        (source / "rocket.jpg").unlink()
        indexing.index(source, out)
        assert len(collection) == 2
        assert collection.item("rocket.jpg").metadata["width"] == 640
    assert len(lookalike.open_collection(out)) == 1


def test_progress_is_shown_where_requested(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = photographs(tmp_path / "source", CAT)
    indexing.index(source, tmp_path / "quiet", encoder="fake")
    assert capsys.readouterr() == ("", "")
    indexing.index(source, tmp_path / "shown", encoder="fake", progress=True)
    assert "building the store" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sources": []}, errors.SourceError, "no sources"),
        ({"sources": "nowhere"}, errors.SourceNotFound, "'nowhere' does not exist"),
        ({"recall": 0.4}, errors.ConfigInvalid, "recall is 0.4; it must be between 0.5 and 1"),
        ({"batch_size": 0}, errors.ConfigInvalid, "batch_size is 0; it must be at least 1"),
        ({"workers": -1}, errors.ConfigInvalid, "workers is -1"),
        ({"max_pixels": 0}, errors.ConfigInvalid, "max_pixels is 0"),
        ({"memory": "much"}, errors.ConfigInvalid, "'much' is no size"),
        ({"latency": "soon"}, errors.ConfigInvalid, "'soon' is no time"),
        ({"store": "milvus"}, errors.UnknownStore, "'milvus'"),
        ({"encoder": "clip"}, errors.UnknownEncoder, "'clip'"),
    ],
)
def test_wrong_options_of_index_are_rejected(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    arguments = {"sources": PHOTOGRAPHS, "out": tmp_path / "out", "encoder": "fake", **options}
    with pytest.raises(error, match=message):
        indexing.index(**arguments)


def test_index_has_the_options_of_the_command() -> None:
    function, command = inspect.signature(indexing.index).parameters, inspect.signature(index_command).parameters
    assert set(function) - {"progress"} == set(command) - {"as_json"}
    defaults = {name: function[name].default for name in function if name in command}
    assert defaults == {name: command[name].default for name in defaults}
