"""Files and folders that can't be read now: nothing is taken for deleted, damaged or absent."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.index import summary_text
from evaluation.datasets import read_examples
from indexing.importing.embeddings import Embeddings
from indexing.importing.job import ImportSettings, run_import
from lookalike.collection import CURRENT, VERSIONS, current_version, open_collection
from lookalike.errors import CollectionError, SourceError
from lookalike.paths import exists, names_in
from lookalike.sources.item import ColumnNames
from lookalike.sources.registry import open_sources
from tests.bad_images import encoded, make_image
from tests.permissions import refused
from tests.unit.test_indexing_job import ids, index
from tests.unit.test_sources import write_parquet, write_tar

COUNT = 3


def image_of(seed: int) -> bytes:
    return encoded(make_image(seed=seed), "JPEG")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "collection"


@pytest.fixture
def shards(tmp_path: Path) -> dict[str, Path]:
    """Two tars, a table of images and a table of paths, each of COUNT images."""
    folder, linked = tmp_path / "shards", tmp_path / "linked"
    folder.mkdir()
    linked.mkdir()
    for i in range(COUNT):
        (linked / f"{i}.jpg").write_bytes(image_of(30 + i))
    paths: dict[str, Path] = {
        name: write_tar(folder / f"{name}.tar", {f"{i}.jpg": image_of(first + i) for i in range(COUNT)})
        for name, first in (("x", 0), ("y", 10))
    }
    rows = range(COUNT)
    paths["table"] = write_parquet(
        folder / "table.parquet", {"id": [f"t{i}" for i in rows], "image": [image_of(20 + i) for i in rows]}
    )
    paths["paths"] = write_parquet(
        tmp_path / "paths.parquet", {"id": [f"p{i}" for i in rows], "image": [f"linked/{i}.jpg" for i in rows]}
    )
    return paths | {"linked": linked}


class TestCollection:
    def test_unreadable_current_is_no_new_collection(self, shards: dict[str, Path], out: Path) -> None:
        index(out, shards["x"])
        with (
            refused(out / CURRENT),
            pytest.raises(CollectionError, match="CURRENT can't be read: Permission denied"),
        ):
            index(out, shards["y"])
        assert len(list((out / VERSIONS).iterdir())) == 1

    @pytest.mark.parametrize("name", ["", "vectors.npy", "manifest.json", "metadata.arrow"])
    def test_unreadable_version_is_not_damaged(self, shards: dict[str, Path], out: Path, name: str) -> None:
        version = index(out, shards["x"]).version
        path = out / VERSIONS / (f"{version}/{name}" if name else "")
        with refused(path), pytest.raises(CollectionError, match="can't be read: Permission denied"):
            index(out, shards["x"])
        assert current_version(out) == version

    def test_damaged_version_is_encoded_again(self, shards: dict[str, Path], out: Path) -> None:
        version = index(out, shards["x"]).version
        (out / VERSIONS / version / "vectors.npy").write_bytes(b"damaged")
        assert index(out, shards["x"]).indexed == COUNT

    def test_import_into_closed_folder_is_refused(self, tmp_path: Path, out: Path) -> None:
        np.save(tmp_path / "v.npy", np.eye(4, dtype=np.float16))
        out.mkdir()
        with refused(out), pytest.raises(SourceError, match="CURRENT can't be read: Permission denied"):
            run_import(ImportSettings(tmp_path / "v.npy", out, "fake"))


class TestSources:
    @pytest.mark.parametrize("name", ["x", "table"])
    def test_items_of_unreadable_file_stay(self, shards: dict[str, Path], out: Path, name: str) -> None:
        sources = (shards["x"], shards["y"], shards["table"])
        index(out, *sources)
        before = set(ids(open_collection(out)))
        with refused(shards[name]):
            summary = index(out, *sources)
        assert (summary.kept, summary.indexed, summary.dropped, summary.rejected) == (COUNT, 3 * COUNT, 0, 1)
        assert summary.unread_files == [str(shards[name])]
        assert f"1 file can't be read now: {shards[name]}" in summary_text(summary)
        assert set(ids(open_collection(out))) == before
        rejected = pq.read_table(out / VERSIONS / summary.version / "rejected.parquet").to_pylist()
        assert rejected[0]["message"] == f"{shards[name]} can't be read: Permission denied"
        assert index(out, *sources).kept == 0

    def test_only_this_tar_of_a_name_is_kept(self, shards: dict[str, Path], out: Path) -> None:
        sources = (f"n={shards['x']}", f"n={shards['y']}")
        index(out, *sources)
        write_tar(shards["y"], {"0.jpg": image_of(10)})
        with refused(shards["x"]):
            summary = index(out, *sources)
        assert (summary.kept, summary.dropped, summary.indexed) == (COUNT, COUNT - 1, COUNT + 1)

    def test_images_that_a_table_names_stay(self, shards: dict[str, Path], out: Path) -> None:
        sources = (shards["x"], shards["paths"])
        index(out, *sources)
        with refused(shards["linked"]):
            summary = index(out, *sources)
        assert (summary.kept, summary.indexed, summary.rejected) == (COUNT, 2 * COUNT, 0)
        assert summary.unlisted_folders == [f"{shards['linked']}/"]
        assert f"{COUNT} images that can't be reached now were kept" in summary_text(summary)

    @pytest.mark.parametrize("name", ["x", "table"])
    def test_only_source_is_an_error(self, shards: dict[str, Path], out: Path, name: str) -> None:
        version = index(out, shards[name]).version
        with (
            refused(shards[name]),
            pytest.raises(SourceError, match=rf"{shards[name].name} can't be read: Permission denied"),
        ):
            index(out, shards[name])
        assert current_version(out) == version

    def test_truncated_tar_is_damaged(self, shards: dict[str, Path], out: Path) -> None:
        index(out, shards["x"], shards["y"])
        shards["x"].write_bytes(shards["x"].read_bytes()[:700])
        summary = index(out, shards["x"], shards["y"])
        assert (summary.kept, summary.unread_files, summary.indexed) == (0, [], COUNT)

    @pytest.mark.parametrize("pattern", ["*/*.tar", "**/*.tar", "b/*.tar", ""])
    def test_closed_folder_of_tars_is_named(self, tmp_path: Path, pattern: str) -> None:
        for name in "ab":
            (tmp_path / name).mkdir()
            write_tar(tmp_path / name / "x.tar", {"0.jpg": image_of(0)})
        with refused(tmp_path / "b"):
            with pytest.raises(SourceError, match="b can't be read: Permission denied"):
                open_sources([str(tmp_path / pattern)])
            if pattern[:1] == "*":
                assert len(open_sources([str(tmp_path / pattern)], exclude=["b/"])) == 1

    def test_measuring_needs_every_tar(self, shards: dict[str, Path]) -> None:
        with refused(shards["x"]), pytest.raises(SourceError, match=r"x\.tar can't be read: Permission denied"):
            read_examples([str(shards["x"]), str(shards["y"])])


class TestImport:
    @pytest.mark.parametrize(
        "name",
        ["img_emb", "metadata", "", "img_emb/img_emb_0.npy", "metadata/metadata_0.parquet"],
    )
    def test_unreadable_part_is_named(self, tmp_path: Path, name: str) -> None:
        for folder in ("img_emb", "metadata"):
            (tmp_path / "e" / folder).mkdir(parents=True)
        np.save(tmp_path / "e/img_emb/img_emb_0.npy", np.eye(4, dtype=np.float16))
        pq.write_table(pa.table({"id": list("abcd")}), tmp_path / "e/metadata/metadata_0.parquet")
        with (
            refused(tmp_path / "e" / name),
            pytest.raises(SourceError, match=rf"{Path(name).name}.* can't be read: Permission denied$"),
        ):
            Embeddings(tmp_path / "e")

    def test_closed_folder_of_images_is_named(self, tmp_path: Path, out: Path) -> None:
        np.save(tmp_path / "v.npy", np.eye(4, dtype=np.float16))
        (tmp_path / "images").mkdir()
        with refused(tmp_path / "images"), pytest.raises(SourceError, match="images can't be read: Permission denied"):
            run_import(
                ImportSettings(tmp_path / "v.npy", out, "fake", images=tmp_path / "images", columns=ColumnNames())
            )


def test_missing_paths_are_no_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert not exists(tmp_path / "none")
    assert not exists(tmp_path / "file" / "below")
    assert names_in(tmp_path / "none") == []
    assert names_in(tmp_path) == ["file"]
