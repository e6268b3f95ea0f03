"""What the job says about the scan, which images it keeps without seeing them, and how many it removes unasked."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import indexing
from cli.index import summary_text
from indexing import dropping
from indexing.ingest import kept_items
from indexing.job import IndexSummary
from lookalike.collection import current_version, open_collection
from lookalike.encoders.fake import FakeEncoder
from lookalike.errors import SourceError
from lookalike.manifest import Counts
from tests.bad_images import encoded, make_image
from tests.unit.test_indexing_job import ids, index
from tests.unit.test_sources import write_parquet, write_tar

COUNT = 40
Refuse = Callable[..., None]


def write_images(folder: Path, count: int, first: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first + count):
        (folder / f"{i:03}.jpg").write_bytes(encoded(make_image(seed=i), "JPEG"))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "collection"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_images(tmp_path / "photos/a", COUNT // 2)
    write_images(tmp_path / "photos/b", COUNT // 2, COUNT // 2)
    (tmp_path / "photos/b/020.txt").write_text("a caption")
    return tmp_path / "photos"


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Make `os.scandir` refuse the folders of these names: root may list any."""
    scandir = os.scandir

    def set_names(*names: str) -> None:
        def refusing(path: Path | int) -> object:
            if not isinstance(path, int) and Path(path).name in names:
                raise PermissionError(13, "Permission denied", str(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refusing)

    return set_names


class TestSkipped:
    def test_summary_counts_skipped_files(self, photos: Path, out: Path) -> None:
        for name in ("a.MOV", "b.mov", "a/c.xmp", "a/README", "bad.jpg"):
            (photos / name).write_bytes(b"no image")
        summary = index(out, photos)
        assert (summary.seen, summary.indexed, summary.rejected, summary.skipped) == (COUNT + 5, COUNT, 1, 4)
        assert summary.skipped_by_extension == {".mov": 2, ".xmp": 1, "": 1}
        assert "1 rejected (" in summary_text(summary)
        assert "+ 4 skipped (2 .mov, 1 .xmp, 1 without extension)" in summary_text(summary)
        counts = open_collection(out).manifest.counts
        assert counts == Counts(seen=COUNT + 5, indexed=COUNT, rejected=1, skipped=4)

    def test_unchanged_run_counts_this_scan(self, photos: Path, out: Path) -> None:
        version = index(out, photos).version
        (photos / "new.mov").write_bytes(b"video")
        again = index(out, photos)
        assert (again.unchanged, again.version, again.skipped, again.seen) == (True, version, 1, COUNT + 1)

    def test_error_counts_what_was_found(self, tmp_path: Path, out: Path) -> None:
        folder = tmp_path / "videos"
        folder.mkdir()
        for i in range(12):
            (folder / f"{i}.mov").write_bytes(b"")
            (folder / f"{i}.x{i:02}").write_bytes(b"")
        with pytest.raises(SourceError, match=r"no images found in .*videos: 12 \.mov, 1 \.x00, .*, 5 others$"):
            index(out, folder)
        with pytest.raises(SourceError, match=r": 24 excluded \(12 \*\.mov, 12 \*\.x\*\)$"):
            index(out, folder, exclude=("*.mov", "*.x*"))

    def test_old_manifest_has_no_skipped(self) -> None:
        assert Counts.model_validate({"seen": 3, "indexed": 2, "rejected": 1}).skipped == 0

    def test_shards_beside_images_are_named(self, photos: Path, out: Path) -> None:
        write_tar(photos / "x.tar", {"a.jpg": b""})
        assert "'FOLDER/**/*.tar'" in summary_text(index(out, photos))

    def test_folder_of_shards_is_indexed(self, tmp_path: Path, out: Path) -> None:
        folder = tmp_path / "shards"
        folder.mkdir()
        write_parquet(folder / "a.parquet", {"id": ["a"], "image": [encoded(make_image(), "JPEG")]})
        (folder / "README.md").write_text("about")
        summary = index(out, folder)
        assert (summary.seen, summary.indexed, summary.skipped_by_extension) == (2, 1, {".md": 1})


class TestExcluded:
    def test_excluded_images_are_dropped(self, photos: Path, out: Path) -> None:
        index(out, photos)
        summary = index(out, photos, exclude=("/b/01*", "/a/00[0-3].jpg"))
        assert (summary.dropped, summary.indexed, summary.excluded) == (4, COUNT - 4, 4)
        assert summary.excluded_by_pattern == {"/a/00[0-3].jpg": 4}
        assert "4 files and folders excluded (4 /a/00[0-3].jpg)" in summary_text(summary)

    def test_python_api_takes_one_pattern(self, photos: Path, out: Path) -> None:
        assert indexing.index(photos, out, encoder="fake", exclude="/b/").indexed == COUNT // 2


class TestKept:
    def test_images_of_unlisted_folder_stay(self, photos: Path, out: Path, refuse: Refuse) -> None:
        index(out, photos)
        before = open_collection(out)
        refuse("b")
        (photos / "a/000.jpg").unlink()
        write_images(photos / "a", 1, 90)
        summary = index(out, photos)
        assert (summary.indexed, summary.dropped, summary.encoded, summary.kept) == (COUNT, 1, 1, COUNT // 2)
        assert (summary.unlisted_folders, summary.rejected) == (["b/"], 1)
        assert summary.seen == summary.indexed + summary.rejected + summary.skipped
        assert "1 folder can't be listed or entered: b/" in summary_text(summary)
        assert f"{COUNT // 2} images that can't be reached now were kept" in summary_text(summary)
        after = open_collection(out)
        old, new = ({item_id: row for row, item_id in enumerate(ids(c))} for c in (before, after))
        for item_id in (name for name in old if name.startswith("b/")):
            rows = old[item_id], new[item_id]
            np.testing.assert_array_equal(before.vectors[rows[0]], after.vectors[rows[1]])
            assert before.thumbnails.get(rows[0]) == after.thumbnails.get(rows[1])
            assert before.metadata.records([rows[0]]) == after.metadata.records([rows[1]])

    def test_same_failure_again_changes_nothing(self, photos: Path, out: Path, refuse: Refuse) -> None:
        index(out, photos)
        refuse("b")
        index(out, photos)
        assert index(out, photos).unchanged
        refuse()
        again = index(out, photos)
        assert (again.encoded, again.indexed, again.rejected, again.kept) == (0, COUNT, 0, 0)

    def test_kept_rows_are_read_in_parts(
        self, photos: Path, out: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        index(out, photos, f"x={photos}")
        refuse("b")
        monkeypatch.setattr(kept_items, "_ROWS_AT_ONCE", 3)
        summary = index(out, photos, f"x={photos}")
        assert (summary.kept, summary.unlisted_folders) == (COUNT, ["b/", "x/b/"])

    def test_unreachable_file_stays(self, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        index(out, photos)
        write_images(photos / "a", 1, 90)
        stat = Path.stat

        def refusing(path: Path, **options: bool) -> os.stat_result:
            if path.parent.name == "a" and path.suffix == ".jpg":  # a folder that may be listed but not entered
                raise PermissionError(13, "Permission denied", str(path))
            return stat(path, **options)

        monkeypatch.setattr(Path, "stat", refusing)
        summary = index(out, photos)
        assert (summary.indexed, summary.kept, summary.rejected) == (COUNT, COUNT // 2, 1)
        assert summary.unlisted_folders == ["a/"]

    def test_other_encoder_can_keep_nothing(
        self, photos: Path, out: Path, refuse: Refuse, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from dataclasses import replace

        class Other(FakeEncoder):
            spec = replace(FakeEncoder.spec, name="other", weights="1" * 64)

        index(out, photos)
        refuse("b")
        monkeypatch.setattr("indexing.job.load_encoder", lambda *_, **__: Other())
        with pytest.raises(SourceError, match="20 of the 40 images"):
            index(out, photos)


class TestDropping:
    def test_many_dropped_images_need_permission(self, photos: Path, out: Path) -> None:
        version = index(out, photos).version
        for path in (photos / "b").iterdir():
            path.unlink()
        with pytest.raises(SourceError, match=r"20 of the 40 images in .*collection.*photos.*--allow-dropping"):
            index(out, photos)
        assert current_version(out) == version
        summary = index(out, photos, allow_dropping=True)
        assert (summary.dropped, summary.indexed) == (20, 20)

    def test_loss_is_refused_before_encoding(self, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        index(out, photos)
        for path in (photos / "b").iterdir():
            path.unlink()
        monkeypatch.setattr("indexing.job.encode_sources", None)
        with pytest.raises(SourceError, match="--allow-dropping"):
            index(out, photos)

    def test_exchanged_images_are_refused_and_kept(self, photos: Path, out: Path) -> None:
        index(out, photos)
        (photos / "b").rename(photos.parent / "gone")
        write_images(photos / "c", COUNT // 2, 200)
        with pytest.raises(SourceError, match="20 of the 40"):
            index(out, photos)
        assert index(out, photos, allow_dropping=True).encoded == 0  # the work folder has them

    def test_replace_does_not_allow_partial_loss(self, photos: Path, out: Path) -> None:
        index(out, photos)
        with pytest.raises(SourceError, match="--allow-dropping"):
            index(out, photos / "a", photos, replace=True, exclude=("b/",))

    def test_newly_unreadable_images_count(self, photos: Path, out: Path) -> None:
        index(out, photos)
        for path in (photos / "b").glob("*.jpg"):
            path.write_bytes(b"")
        with pytest.raises(SourceError, match=r"20 of the 40 images .*can't be read now"):
            index(out, photos)

    def test_source_left_out_is_refused(self, photos: Path, out: Path) -> None:
        index(out, f"a={photos / 'a'}", f"b={photos / 'b'}")
        with pytest.raises(SourceError, match="--allow-dropping"):
            index(out, f"a={photos / 'a'}")

    @pytest.mark.parametrize(("before", "dropped", "allowed"), [
        (40, 19, True), (40, 20, False), (200, 20, True), (200, 21, False), (1000, 100, True), (1000, 101, False),
    ])  # fmt: skip
    def test_limit(self, before: int, dropped: int, allowed: bool) -> None:
        if allowed:
            dropping.require_few_dropped(Path("c"), ["s"], before, dropped)
        else:
            with pytest.raises(SourceError, match=f"{dropped} of the {before:,}"):
                dropping.require_few_dropped(Path("c"), ["s"], before, dropped)


def test_summary_is_json_ready(photos: Path, out: Path) -> None:
    summary: IndexSummary = index(out, photos)
    fields = asdict(summary)
    assert {"skipped", "skipped_by_extension", "excluded", "unlisted_folders", "kept"} <= set(fields)
