"""The store that searches a collection: its own, or exact search on CUDA in its place. No GPU is needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import lookalike
from cli.main import app
from indexing.job import IndexSettings, run_index
from lookalike import bootstrap
from lookalike.bootstrap import (
    EngineOptions,
    StoreDevice,
    open_collection_store,
    open_searcher,
    require_current_edition,
)
from lookalike.collection import Collection, open_collection
from lookalike.encoders.fake import FakeEncoder
from lookalike.encoders.lite import editions
from lookalike.encoders.lite.editions import FIRST_EDITION
from lookalike.errors import EncoderMismatch, StoreUnavailable
from lookalike.manifest import StoreEntry
from lookalike.row_search import RowSearcher, SearchOptions
from lookalike.stopwatch import Stopwatch
from lookalike.stores.exact import ExactStore
from lookalike.stores.protocol import VectorStore
from lookalike.stores.registry import open_store
from lookalike.stores.torch_exact import TorchStore
from lookalike.types import Float16
from tests.api.small_collection import build_collection
from tests.unit.small_images import make_image

GOLDEN = Path(__file__).resolve().parents[1] / "golden"


@pytest.fixture
def golden() -> Collection:
    return open_collection(GOLDEN / "format-1-faiss")


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Set whether CUDA is available; the CPU stands in for it."""

    def opened(kind: str, folder: Path, vectors: Float16, params: Mapping[str, object] | None = None) -> VectorStore:
        assert (kind == "torch-exact") == ((params or {}).get("device") == "cuda")
        return open_store(kind, folder, vectors, {**(params or {}), "device": "cpu"})

    def there_is(available: bool) -> None:
        monkeypatch.setattr(bootstrap, "cuda_available", lambda: available)
        if available:
            monkeypatch.setattr(bootstrap, "open_store", opened)

    return there_is


def with_store(collection: Collection, kind: str, asked: str | None) -> Collection:
    """The collection as a job with this request would have written it."""
    own = collection.manifest.store
    params = own.params if kind == own.kind else {}
    entry = StoreEntry(kind=kind, params=params if asked is None else {**params, "asked": asked})
    manifest = collection.manifest.model_copy(update={"store": entry})
    return Collection(**{**vars(collection), "manifest": manifest})


@pytest.mark.parametrize(
    ("kind", "asked", "device", "on_a_gpu", "on_a_cpu"),
    [
        ("exact", "exact", "auto", "torch-exact", "exact"),
        ("exact", "auto", "auto", "torch-exact", "exact"),
        ("exact", None, "auto", "torch-exact", "exact"),
        ("torch-exact", "torch-exact", "auto", "torch-exact", "exact"),
        ("faiss", "auto", "auto", "torch-exact", "faiss"),
        ("faiss", "faiss", "auto", "faiss", "faiss"),
        ("faiss", None, "auto", "faiss", "faiss"),
        ("faiss", "faiss", "cuda", "torch-exact", None),
        ("exact", "exact", "cuda", "torch-exact", None),
        ("exact", "exact", "cpu", "exact", "exact"),
        ("torch-exact", "torch-exact", "cpu", "exact", "exact"),
        ("faiss", "auto", "cpu", "faiss", "faiss"),
    ],
)
def test_store_by_kind_and_device(
    kind: str,
    asked: str | None,
    device: StoreDevice,
    on_a_gpu: str,
    on_a_cpu: str | None,
    golden: Collection,
    cuda: Callable[[bool], None],
) -> None:
    collection = with_store(golden, kind, asked)
    cuda(False)
    if on_a_cpu is None:
        with pytest.raises(StoreUnavailable, match="CUDA"):
            open_collection_store(collection, device)
    else:
        assert open_collection_store(collection, device).kind == on_a_cpu
    cuda(True)
    assert open_collection_store(collection, device).kind == on_a_gpu


def test_failing_device_falls_back_to_the_own_store(
    golden: Collection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refused(self: TorchStore, vectors: Float16, device: str | None = None) -> None:
        raise StoreUnavailable("the vectors need 9 GB")

    monkeypatch.setattr(TorchStore, "__init__", refused)
    monkeypatch.setattr(bootstrap, "cuda_available", lambda: True)
    collection = with_store(golden, "faiss", "auto")
    with caplog.at_level(logging.WARNING):
        assert open_collection_store(collection).kind == "faiss"
    assert "the vectors need 9 GB" in caplog.text
    with pytest.raises(StoreUnavailable, match="9 GB"):
        open_collection_store(collection, "cuda")


@pytest.mark.parametrize(
    ("device", "store_device", "kind"),
    [
        ("auto", "auto", "torch-exact"),
        ("cpu", "auto", "exact"),
        ("cpu", "cuda", "torch-exact"),
        ("auto", "cpu", "exact"),
    ],
)
def test_store_avoids_cuda_when_the_encoder_does(
    device: str, store_device: StoreDevice, kind: str, cuda: Callable[[bool], None]
) -> None:
    cuda(True)
    searcher = open_searcher(
        GOLDEN / "format-1-exact", engine_options=EngineOptions(device, "openvino"), store_device=store_device
    )
    assert searcher.store.kind == kind


def test_exact_store_answers_exact_searches(golden: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the memory map beside it."""
    store = TorchStore(golden.vectors, "cpu")
    queries = np.array(golden.vectors[:3], np.float32)
    truth = ExactStore(golden.vectors).search(queries, 4)
    monkeypatch.setattr(ExactStore, "search", None)
    rows = RowSearcher(store, golden.vectors, golden.metadata)
    for options in (SearchOptions(4), SearchOptions(4, exact=True)):
        for found, expected in zip(rows.search(queries, options, Stopwatch()), truth, strict=True):
            np.testing.assert_array_equal(found.rows, expected.rows)
            np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("asked", ["auto", "exact", "torch-exact"])
def test_manifest_records_the_requested_store(asked: str, tmp_path: Path) -> None:
    (tmp_path / "red.png").write_bytes(make_image("red"))
    run_index(IndexSettings((str(tmp_path / "red.png"),), tmp_path / "out", encoder="fake", store=asked))
    entry = open_collection(tmp_path / "out").manifest.store
    assert (entry.kind, entry.params["asked"]) == ("exact" if asked == "auto" else asked, asked)


def test_loaded_encoder_is_reused_by_its_own_name_only(monkeypatch: pytest.MonkeyPatch) -> None:
    root = GOLDEN / "format-1-faiss"
    first = open_searcher(root)
    key = first.collection.manifest.encoder.name, first.encoder.spec.identity
    monkeypatch.setattr(bootstrap, "load_encoder", lambda name, *_: pytest.fail(f"{name} was loaded again"))
    assert open_searcher(open_collection(root), loaded={key: first.encoder}).encoder is first.encoder
    with pytest.raises(pytest.fail.Exception, match="was loaded again"):  # equal weights, perhaps another calibration
        open_searcher(open_collection(root), loaded={("folder:elsewhere", key[1]): first.encoder})


class TestFirstEdition:
    """A collection of the first edition of `lite`, opened by a release that has another one."""

    @pytest.fixture
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(editions, "weights_digest", lambda: "2" * 64)
        return build_collection(tmp_path / "my gallery", replace(FakeEncoder.spec, name="lite", weights=FIRST_EDITION))

    @pytest.mark.parametrize("encoder", [None, "lite", "fake"])
    @pytest.mark.parametrize("is_open", [False, True])
    def test_searcher_is_refused_in_one_line(self, folder: Path, encoder: str | None, is_open: bool) -> None:
        with pytest.raises(EncoderMismatch, match=r"made by the first edition of 'lite'.* has the second") as raised:
            open_searcher(open_collection(folder) if is_open else folder, encoder=encoder)
        assert "\n" not in str(raised.value)

    def test_python_api_refuses_to_open_it(self, folder: Path) -> None:
        with pytest.raises(EncoderMismatch, match="first edition"):
            lookalike.open_collection(folder)

    def test_search_command_refuses_it(self, folder: Path) -> None:
        result = CliRunner().invoke(app, ["search", str(folder), "--text", "red"])
        assert result.exit_code == 1
        assert isinstance(result.exception, EncoderMismatch)

    @pytest.mark.parametrize(
        ("sources", "inputs", "command"),
        [
            (["photos", "more=my images"], "0a1b", "photos 'more=my images' --out {out}`"),
            ([f"part-{i:05}.tar" for i in range(50)], "0a1b", "SOURCE --out {out}`"),
            (["embeddings"], "", "SOURCE --out {out} --replace`"),
        ],
        ids=["sources", "too many to name", "import"],
    )
    def test_message_has_the_command(self, folder: Path, sources: list[str], inputs: str, command: str) -> None:
        collection = open_collection(folder)
        manifest = collection.manifest.model_copy(update={"sources": sources, "inputs": inputs})
        with pytest.raises(EncoderMismatch) as raised:
            require_current_edition(replace(collection, manifest=manifest))
        assert str(raised.value).endswith(f"`lookalike index {command}".format(out=f"'{folder}'"))

    def test_collection_of_another_encoder_is_accepted(self, folder: Path) -> None:
        assert len(open_searcher(build_collection(folder.parent / "other")).collection)

    def test_release_of_that_edition_accepts_it(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(editions, "weights_digest", lambda: FIRST_EDITION)
        require_current_edition(open_collection(folder))
