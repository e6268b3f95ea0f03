"""The clients with a running service."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from lookalike.collection import store_map
from lookalike.collection_map import CollectionMap
from lookalike_client import ApiError, AsyncClient, Client, Part, SearchResults
from tests.api.small_collection import ITEMS, PHOTOGRAPHS, WITHOUT_THUMBNAIL
from tests.client.recorded import PHOTOGRAPH

CAT = "animals/cat.png"
WIDE = {"must": [{"field": "width", "range": {"gte": 600}}]}


def _ids(found: Any) -> list[str]:
    return [entry.id for entry in found]


@pytest.mark.parametrize(
    "image",
    [
        lambda: PHOTOGRAPH,
        lambda: str(PHOTOGRAPH),
        lambda: PHOTOGRAPH.read_bytes(),
        lambda: io.BytesIO(PHOTOGRAPH.read_bytes()),
        lambda: Image.open(PHOTOGRAPH),
    ],
    ids=["path", "str", "bytes", "file", "pillow"],
)
def test_image_forms_find_the_same(client: Client, image: Callable[[], Any]) -> None:
    found = client.search(image=image(), limit=2)
    assert next((hit.id, hit.score) for hit in found) == (CAT, 1.0)
    assert found.collection == "photographs"
    assert found.results[0].metadata["caption"] == "a cat"


@pytest.mark.parametrize("mode", ["CMYK", "F", "HSV", "LA", "P", "1", "I;16"])
def test_pillow_modes_are_sent(client: Client, mode: str) -> None:
    image = Image.open(PHOTOGRAPH).convert("L" if mode in ("LA", "P", "1", "F", "I;16") else "RGB").convert(mode)
    assert len(client.search(image=image, limit=3)) == 3


def test_pillow_image_keeps_its_orientation(client: Client, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(PHOTOGRAPH).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    turned = Image.open(tmp_path / "turned.jpg")
    assert client.compare(turned, tmp_path / "turned.jpg").cosine == pytest.approx(1.0, abs=1e-4)


def test_other_objects_are_no_images(client: Client) -> None:
    with pytest.raises(TypeError, match="not <class 'int'>"):
        client.search(image=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="binary mode"):
        client.search(image=io.StringIO("text"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="give it as image_url"):
        client.search(image="https://example.com/cat.jpg")


@pytest.mark.parametrize("query", [{}, {"text": "a cat", "id": CAT}, {"query": "a cat", "id": CAT}])
def test_query_is_given_once(client: Client, query: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="give "):
        client.search(**query)


def test_search_options_reach_the_service(client: Client) -> None:
    options: dict[str, Any] = {
        "limit": 3,
        "offset": 0,
        "filter": WIDE,
        "fields": ["width"],
        "min_score": -1.0,
        "include": ["embedding"],
        "params": {"exact": True},
        "group_by": "width",
        "group_size": 1,
        "deduplicate": 0.999,
    }
    for query in ({"text": "a cat"}, {"image": PHOTOGRAPH}, {"id": CAT}, {"query": ["a cat", PHOTOGRAPH]}):
        found = client.search(**query, **options)
        assert len(found) == 3
        for hit in found:
            assert hit.metadata.keys() == {"width"}
            assert hit.group == hit.metadata["width"] >= 600
            assert hit.duplicates in (0, 1)  # the motorcycle, from the left and from the right
            assert sum(value**2 for value in hit.embedding or []) == pytest.approx(1.0, abs=1e-3)


def test_long_filter_is_sent_with_an_image(client: Client) -> None:
    condition = {"must": [{"field": "caption", "in": ["a cat", *(f"caption {i}" for i in range(8000))]}]}
    assert _ids(client.search(image=PHOTOGRAPH, filter=condition)) == [CAT]


def test_parts_are_combined(client: Client) -> None:
    weighted = client.search(query=[PHOTOGRAPH, Part(id="cup", weight=-0.5), {"text": "a cat"}])
    assert _ids(weighted) != _ids(client.search(image=PHOTOGRAPH))
    embedding = client.search(id="cup", limit=1, include=["embedding"]).results[0].embedding
    assert _ids(client.search(query=Part(embedding=embedding), limit=1)) == ["cup"]


def test_search_is_iterated(client: Client) -> None:
    everything = _ids(client.search("a cat", limit=50))
    assert len(everything) == len(ITEMS)
    for page_size in (2, 3, 9, 50):
        assert _ids(client.iter_search("a cat", page_size=page_size)) == everything
    assert _ids(client.iter_search("a cat", page_size=2, total=3, offset=1)) == everything[1:4]
    assert _ids(client.iter_search(image=io.BytesIO(PHOTOGRAPH.read_bytes()), page_size=4)) == _ids(
        client.search(image=PHOTOGRAPH, limit=50)
    )


def test_batch_has_results_and_errors(client: Client) -> None:
    found, missing, limited, item = client.search_batch(
        ["a cat", Part(id="nowhere"), {"query": [PHOTOGRAPH, "a cat"], "limit": 2, "fields": []}, {"id": "cup"}]
    )
    assert isinstance(found, SearchResults)
    assert _ids(found) == _ids(client.search("a cat"))
    assert isinstance(missing, ApiError)
    assert (missing.status, missing.code) == (404, "unknown_item")
    assert isinstance(limited, SearchResults)
    assert [hit.metadata for hit in limited] == [{}, {}]
    assert isinstance(item, SearchResults)
    assert item.results[0].id == "cup"


def test_pair_is_compared(client: Client) -> None:
    same = client.compare(PHOTOGRAPH, {"id": CAT})
    assert same.cosine == pytest.approx(1.0, abs=1e-4)
    assert same.kinds == ["image", "image"]
    assert client.compare("a cat", PHOTOGRAPH, threshold=0.0).similar is False
    with pytest.raises(ValueError, match="no weight"):
        client.compare("a cat", Part(text="a dog", weight=2.0))


def test_many_are_compared_with_many(client: Client) -> None:
    found = client.similarity_matrix([PHOTOGRAPH, "a cat"], [Part(id=CAT)])
    assert found.kinds == [["image", "text"], ["image"]]
    assert found.cosine == [[pytest.approx(1.0, abs=1e-4)], [client.compare("a cat", {"id": CAT}).cosine]]
    square = client.similarity_matrix([PHOTOGRAPH, "a cat", "a dog"])
    assert square.probability[1][2] is None
    assert [len(row) for row in square.cosine] == [3, 3, 3]


def test_images_are_classified(client: Client) -> None:
    [alone] = client.classify(PHOTOGRAPH, ["red", "blue"])
    first, second = client.classify([str(PHOTOGRAPH), Part(id=CAT)], ("red", "blue"), template=["{}", "a {} thing"])
    assert {each.label for each in alone} == {"red", "blue"}
    assert sum(each.softmax for each in alone) == pytest.approx(1.0, abs=1e-5)
    assert [each.cosine for each in first] == pytest.approx([each.cosine for each in second], abs=1e-4)
    with pytest.raises(ApiError, match=r"inputs\.1"):
        client.classify([PHOTOGRAPH, Part(text="a cat")], ["red"])


def test_items_are_listed(client: Client) -> None:
    page = client.items(limit=2, offset=1, sort="-width", fields=["width"])
    assert (len(page), page.offset, page.total) == (2, 1, len(ITEMS))
    assert _ids(client.iter_items(page_size=2)) == list(ITEMS)
    assert _ids(client.iter_items(page_size=3, total=4, offset=2)) == list(ITEMS)[2:6]
    wide = _ids(client.iter_items(page_size=2, filter=WIDE))
    assert len(wide) == client.count(WIDE).count == client.facets(filter=WIDE, fields=["width"]).count
    assert client.count().total == len(ITEMS)


@pytest.mark.parametrize("item_id", ITEMS)
def test_item_of_any_id_is_read(client: Client, item_id: str) -> None:
    assert client.item(item_id).metadata.get("caption") == ITEMS[item_id][1]
    assert client.item(item_id, fields=["width"]).metadata.keys() == {"width"}
    if item_id == WITHOUT_THUMBNAIL:
        with pytest.raises(ApiError, match="404 no_thumbnail"):
            client.thumbnail(item_id)
    else:
        thumbnail = client.thumbnail(item_id)
        assert thumbnail.media_type == "image/jpeg"
        assert max(Image.open(io.BytesIO(thumbnail.data)).size) <= 256


def test_original_is_read_as_bytes() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, content=str(request.url).encode()))
    with Client("http://service", transport=transport) as client:
        assert client.original("a b/cat.png") == b"http://service/v1/items/a%20b/cat.png/original"
        assert client.original("../x") == b"http://service/v1/item/original?id=..%2Fx"


def test_original_of_a_service_without_them_is_refused(client: Client) -> None:
    with pytest.raises(ApiError, match="403 originals_disabled"):
        client.original(CAT)


def test_columns_are_described(client: Client) -> None:
    assert {"caption", "width"} <= {field.name for field in client.fields().fields}
    (width,) = client.facets(fields=["width"], bins=3).fields
    assert width.histogram is not None
    assert len(width.histogram.edges) == len(width.histogram.counts) + 1


def test_map_has_a_place_for_each_item(client: Client, collection: Path) -> None:
    with pytest.raises(ApiError, match="404 no_map"):
        client.map()
    (folder,) = (collection / "versions").iterdir()
    points = np.linspace(0, 1, 2 * len(ITEMS), dtype=np.float32).reshape(-1, 2)
    store_map(folder, CollectionMap(folder.name, points, "umap", {}, "2026-01-01T00:00:00Z"))
    found = client.map("caption")
    assert (len(found), found.unmapped, found.ids) == (len(ITEMS), 0, list(ITEMS))
    np.testing.assert_allclose(np.array([found.x, found.y]).T, points, atol=1e-5)
    assert found.field is not None
    assert found.field.values == [caption for _, caption in ITEMS.values()]


def test_collection_of_a_client(client: Client) -> None:
    assert [each.name for each in client.collections()] == ["photographs"]
    named = client.for_collection("photographs")
    assert named.collection_info().items == named.reload().items == len(ITEMS)
    assert _ids(named.search("a cat")) == _ids(client.search("a cat"))
    with pytest.raises(ApiError, match="404 unknown_collection"):
        client.for_collection("elsewhere").search("a cat")
    with pytest.raises(ValueError, match="name the collection"):
        client.collection_info()


def test_service_is_described(client: Client) -> None:
    client.live()
    assert client.ready().items == len(ITEMS)
    client.search("a cat")
    assert client.stats()["encode"].count > 0
    assert "lookalike_" in client.metrics()


def test_error_names_the_fields(client: Client) -> None:
    with pytest.raises(ApiError, match="limit is 0") as raised:
        client.search("a cat", limit=0)
    assert (raised.value.status, raised.value.code) == (422, "invalid_limit")
    assert raised.value.request_id
    with pytest.raises(ApiError) as raised:
        client.search("a cat", lmit=3)  # type: ignore[call-arg]
    assert raised.value.errors[0]["field"] == "lmit"


async def test_async_client_finds_the_same(address: str, client: Client) -> None:
    async with AsyncClient(address) as other:
        searches = [other.search(image=PHOTOGRAPHS / name) for name, _ in ITEMS.values()]
        for found, (name, _) in zip(await asyncio.gather(*searches), ITEMS.values(), strict=True):
            assert _ids(found) == _ids(client.search(image=PHOTOGRAPHS / name))
        hits = [hit async for hit in other.iter_search("a cat", page_size=2)]
        assert _ids(hits) == _ids(client.search("a cat"))
        assert [item.id async for item in other.iter_items(page_size=4)] == list(ITEMS)


def test_inputs_are_embedded(client: Client) -> None:
    embedded = client.embed(["a cat", PHOTOGRAPH, "data:image/png;base64,"])
    assert embedded.model == "fake"
    assert embedded.prompt_tokens > 0
    assert len(embedded) == 3
    stored = client.search(id=CAT, limit=1, include=["embedding"]).results[0].embedding or []
    assert embedded.embeddings[1] == pytest.approx(stored, abs=1e-3)
    assert client.embed("a cat", model="photographs").embeddings == [pytest.approx(embedded.embeddings[0], abs=1e-6)]
    assert client.for_collection("photographs").embed("a cat").model == "photographs"


def test_invalid_input_is_named(client: Client) -> None:
    with pytest.raises(ApiError, match=r"input\.1") as raised:
        client.embed(["a cat", b"no image"])
    assert raised.value.status == 400
    with pytest.raises(ApiError, match="404 unknown_model"):
        client.embed("a cat", model="elsewhere")
    with pytest.raises(ValueError, match="include="):
        client.embed(Part(id=CAT))


def test_models_are_listed(client: Client) -> None:
    assert {"fake", "photographs"} == {model.id for model in client.models()}
    model = client.model("photographs")
    assert (model.encoder, model.modalities) == ("fake", ["image", "text"])
    assert model.dimensions == len(client.embed("a cat").embeddings[0])
