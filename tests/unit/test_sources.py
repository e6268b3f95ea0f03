"""Sources: what becomes an item, under which id, with which columns, and what is reported as unreadable."""

from __future__ import annotations

import doctest
import io
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.errors import LookalikeError, SourceError, SourceNotFound
from lookalike.sources import columns as columns_module
from lookalike.sources import takeout
from lookalike.sources import tar as tar_module
from lookalike.sources.item import ColumnNames, Item, Source
from lookalike.sources.registry import open_sources
from tests.bad_images import encoded, make_image

JPEG = encoded(make_image(), "JPEG")


def one(argument: object, columns: ColumnNames | None = None) -> Source:
    (source,) = open_sources([str(argument)], columns)
    return source


def items(argument: object, columns: ColumnNames | None = None) -> list[Item]:
    return [item for source in open_sources([str(argument)], columns) for item in source]


def ids(argument: object) -> list[str]:
    return [item.id for item in items(argument)]


def code_of(item: Item) -> str:
    with pytest.raises(LookalikeError) as caught:
        item.load()
    return caught.value.code


def write_tar(path: Path, members: Mapping[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]  # the mode is a variable
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def write_parquet(path: Path, columns: Mapping[str, list[Any]]) -> Path:
    pq.write_table(pa.table(dict(columns)), path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    for name in ("b/a.jpg", "a/a.JPG", "a/b.PnG", "top.webp", "notes.md", ".hidden.jpg", ".git/x.jpg", "b/a.txt"):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"one line" if path.suffix == ".txt" else JPEG)
    return root


@pytest.mark.parametrize("module", [columns_module, tar_module, takeout])
def test_docstring_examples(module: Any) -> None:
    assert doctest.testmod(module).failed == 0


class TestFolder:
    def test_ids_are_relative_paths_in_a_fixed_order(self, folder: Path) -> None:
        assert ids(folder) == ["top.webp", "a/a.JPG", "a/b.PnG", "b/a.jpg"]
        assert one(folder).estimated_count() == 4

    def test_item_has_bytes_path_and_source(self, folder: Path) -> None:
        item = items(folder)[1]
        assert item.load() == JPEG
        assert (item.source, item.columns) == ("images", {"path": "a/a.JPG"})

    def test_caption_comes_from_text_file(self, folder: Path) -> None:
        (folder / "a/a.txt").write_text("\ufeffa cat\n\n  two   cats \n", encoding="utf-8")
        first, second = (item for item in items(folder) if item.id in {"a/a.JPG", "b/a.jpg"})
        assert first.columns["caption"] == "a cat"
        assert first.columns["captions"] == ["a cat", "two cats"]
        assert second.columns == {"path": "b/a.jpg", "caption": "one line"}

    def test_fingerprint_depends_on_the_image_only(self, folder: Path) -> None:
        def fingerprints() -> dict[str, int]:
            return {item.id: item.fingerprint for item in items(folder)}

        before = fingerprints()
        assert fingerprints() == before
        (folder / "b/a.txt").write_text("another line")
        os.utime(folder / "top.webp", ns=(1, 1))
        changed = {name for name, value in fingerprints().items() if value != before[name]}
        assert changed == {"top.webp"}

    def test_links_are_followed_once_and_loops_end(self, folder: Path, tmp_path: Path) -> None:
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / "far.jpg").write_bytes(JPEG)
        (elsewhere / "back").symlink_to(folder)
        (folder / "linked").symlink_to(elsewhere)
        (folder / "again").symlink_to(folder / "a")
        (folder / "a" / "up").symlink_to(folder)
        (folder / "z.jpg").symlink_to(folder / "top.webp")
        assert ids(folder) == ["top.webp", "z.jpg", "a/a.JPG", "a/b.PnG", "b/a.jpg", "linked/far.jpg"]

    def test_unreadable_file_is_a_failing_item(self, folder: Path) -> None:
        (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
        os.mkfifo(folder / "pipe.jpg")
        codes = {item.id: code_of(item) for item in items(folder) if item.id in {"gone.jpg", "pipe.jpg"}}
        assert codes == {"gone.jpg": "source_not_found", "pipe.jpg": "source_invalid"}

    def test_vanished_file_raises_source_not_found(self, folder: Path) -> None:
        item = items(folder)[0]
        (folder / "top.webp").unlink()
        assert code_of(item) == "source_not_found"

    def test_huge_file_is_rejected_unread(self, folder: Path) -> None:
        with (folder / "top.webp").open("wb") as stream:
            stream.truncate(1 << 40)  # sparse
        assert code_of(items(folder)[0]) == "image_too_large"

    def test_non_utf8_name_has_an_id(self, folder: Path) -> None:
        path = os.fsencode(folder) + b"/caf\xe9.jpg"
        with open(path, "wb") as stream:
            stream.write(JPEG)
        item = items(folder)[0]
        assert item.id == "caf\\xe9.jpg"
        assert item.load() == JPEG

    def test_decomposed_name_has_a_composed_id(self, folder: Path) -> None:
        (folder / "Cafe\u0301.jpg").write_bytes(JPEG)
        item = items(folder)[0]
        assert (item.id, item.columns["path"]) == ("Café.jpg", "Café.jpg")
        assert item.load() == JPEG

    def test_two_spellings_of_a_name_are_two_items(self, folder: Path) -> None:
        for name in ("Cafe\u0301.jpg", "Café.jpg"):
            (folder / name).write_bytes(JPEG)
        first, second = items(folder)[:2]
        assert first.id == second.id == "Café.jpg"
        assert second.fallback_id == "images/Café.jpg"

    def test_line_break_in_a_name_is_part_of_the_id(self, folder: Path) -> None:
        (folder / "a\nb\t.jpg").write_bytes(JPEG)
        assert items(folder)[0].id == "a\nb\t.jpg"

    def test_a_single_file_is_a_source(self, folder: Path) -> None:
        assert ids(folder / "b/a.jpg") == ["a.jpg"]
        assert items(folder / "b/a.jpg")[0].columns["caption"] == "one line"


class TestTar:
    members: ClassVar = {
        "000/a.jpg": JPEG,
        "000/a.txt": b"first\nsecond\n",
        "000/a.json": json.dumps({"label": 3, "width": 9}).encode(),
        "000/b.c.jpg": JPEG,
        "000/b.d.png": JPEG,
        "readme.txt": b"no image",
        "dir.x/e.jpg": JPEG,
    }

    def test_samples_are_grouped_by_key(self, tmp_path: Path) -> None:
        found = items(write_tar(tmp_path / "part-1.tar", self.members))
        assert [item.id for item in found] == [
            "part-1/000/a",
            "part-1/000/b.c.jpg",
            "part-1/000/b.d.png",
            "part-1/dir.x/e",
        ]
        assert all(item.load() == JPEG for item in found)
        assert found[0].columns == {
            "path": "000/a.jpg",
            "caption": "first",
            "captions": ["first", "second"],
            "label": 3,
            "source_width": 9,
        }

    @pytest.mark.parametrize(("name", "mode"), [("x.tar.gz", "w:gz"), ("x.tgz", "w:gz"), ("x.tar.xz", "w:xz")])
    def test_a_compressed_tar_gives_the_same_items(self, tmp_path: Path, name: str, mode: str) -> None:
        found = items(write_tar(tmp_path / name, self.members, mode))
        assert [item.id for item in found][:2] == ["x/000/a", "x/000/b.c.jpg"]
        assert all(item.load() == JPEG for item in found)

    @pytest.mark.parametrize("mode", ["w", "w:gz"])
    @pytest.mark.parametrize("order", [1, -1])
    def test_plain_tar_keeps_images_with_dots_in_their_names(self, tmp_path: Path, mode: str, order: int) -> None:
        names = [f"Screenshot 2024-05-03 at 10.15.{second}.png" for second in (12, 13)]
        names += ["v1.2.jpg", "cat.jpg", "v1.3.jpg", "v1.jpg", "photo.final.jpg", "Dr. Who.jpg", "12.05.2024 x.jpeg"]
        path = write_tar(tmp_path / f"x.tar{mode[1:].replace(':', '.')}", dict.fromkeys(names[::order], JPEG), mode)
        found = {item.columns["path"]: item.id for item in items(path)}
        assert found == {name: f"x/{name}" for name in names} | {"cat.jpg": "x/cat", "v1.jpg": "x/v1"}

    def test_files_of_plain_tar_keep_their_own_sidecars(self, tmp_path: Path) -> None:
        members = {f"v1.{i}.{ending}": JPEG for i in (2, 3) for ending in ("jpg",)}
        members |= {f"v1.{i}.txt": f"caption {i}".encode() for i in (2, 3)}
        members |= {f"v1.{i}.json": b'{"n": %d}' % i for i in (2, 3)}
        columns = {item.id: dict(item.columns) for item in items(write_tar(tmp_path / "x.tar", members))}
        assert columns == {f"x/v1.{i}.jpg": {"path": f"v1.{i}.jpg", "caption": f"caption {i}", "n": i} for i in (2, 3)}

    def test_sidecar_may_be_named_like_the_file(self, tmp_path: Path) -> None:
        members = {"a.jpg": JPEG, "a.jpg.json": b'{"n": 1}', "v.1.jpg": JPEG, "v.1.jpg.txt": b"a cat"}
        first, second = items(write_tar(tmp_path / "x.tar", members))
        assert (first.id, first.columns["n"], second.id, second.columns["caption"]) == ("x/a", 1, "x/v.1.jpg", "a cat")

    @pytest.mark.parametrize("views", [("left", "right"), ("0", "1")])
    def test_views_of_a_sample_share_its_sidecar(self, tmp_path: Path, views: tuple[str, str]) -> None:
        members = {"a.jpg": JPEG} | {f"cat.{view}.jpg": JPEG for view in views} | {"cat.json": b'{"n": 1}'}
        members["cat.txt"] = b"both"
        members[f"cat.{views[1]}.txt"] = b"one"
        _, first, second = items(write_tar(tmp_path / "x.tar", members))
        assert (first.id, second.id) == tuple(f"x/cat.{view}.jpg" for view in views)
        assert (first.columns["n"], second.columns["n"]) == (1, 1)
        assert (first.columns["caption"], second.columns["caption"]) == ("both", "one")

    def test_image_and_mask_of_a_sample_keep_their_ids(self, tmp_path: Path) -> None:
        members = {"7.jpg": JPEG, "7.seg.png": JPEG, "7.json": b'{"n": 1}', "8.image.jpg": JPEG, "8.meta.json": b"{}"}
        assert ids(write_tar(tmp_path / "x.tar", members)) == ["x/7.jpg", "x/7.seg.png", "x/8"]

    def test_second_image_of_a_key_has_its_whole_name(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "x.tar", {"a.jpg": JPEG, "b.jpg": JPEG, "a.png": JPEG})
        assert [(item.id, item.fallback_id) for item in items(path)] == [
            ("x/a", "x/a.jpg"),
            ("x/b", "x/b.jpg"),
            ("x/a", "x/a.png"),
        ]

    @pytest.mark.parametrize("mode", ["w", "w:gz"])
    def test_content_decides_where_a_member_has_no_extension(self, tmp_path: Path, mode: str) -> None:
        members = {"photo": JPEG, "notes": b"no image", "2024.05.03": JPEG, "photo.txt": b"a cat", "empty": b""}
        found = items(write_tar(tmp_path / f"x.tar{mode[1:].replace(':', '.')}", members, mode))
        assert [item.id for item in found] == ["x/photo", "x/2024.05.03"]

    def test_files_that_gave_nothing_are_skipped(self, tmp_path: Path) -> None:
        members = {"1.jpg": JPEG, "1.txt": b"a cat", "1.json": b"{", "1.cls": b"7", "2.mov": b"x", "2.txt": b"a film"}
        source = one(write_tar(tmp_path / "x.tar", members))
        for _ in range(2):
            assert len(list(source)) == 1
            assert source.report.skipped == {".json": 1, ".cls": 1, ".mov": 1, ".txt": 1}

    def test_many_neighbours_are_read_in_parts(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tar_module, "_MAX_NEIGHBOUR_BYTES", 3 * len(JPEG))
        path = write_tar(tmp_path / "x.tar.gz", {f"IMG.{i:04}.jpg": JPEG for i in range(10)}, "w:gz")
        assert ids(path) == [f"x/IMG.{i:04}.jpg" for i in range(10)]

    def test_caption_falls_back_to_json(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "x.tar", {"a.json": b'{"caption": "a dog", "title": "Rex"}', "a.jpg": JPEG})
        assert items(path)[0].columns["caption"] == "a dog"
        assert items(path, ColumnNames(caption="title"))[0].columns["caption"] == "Rex"

    @pytest.mark.parametrize("sidecar", [b"{", b"[" * 100_000, b"\xff\xfe", b"[1, 2]"])
    def test_broken_sidecar_keeps_the_image(self, tmp_path: Path, sidecar: bytes) -> None:
        (item,) = items(write_tar(tmp_path / "x.tar", {"a.jpg": JPEG, "a.json": sidecar}))
        assert item.load() == JPEG

    @pytest.mark.parametrize("mode", ["w", "w:gz"])
    def test_truncated_tar_keeps_its_readable_part(self, tmp_path: Path, mode: str) -> None:
        noise = os.urandom(40_000)  # more than gzip looks back, so that the cut falls where it is meant to
        name = "x.tar.gz" if mode == "w:gz" else "x.tar"
        path = write_tar(tmp_path / name, {f"{i}.jpg": noise for i in range(9)}, mode)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        *good, loss = items(path)
        whole = [item for item in good if item.id in {"x/0", "x/1", "x/2"}]
        assert [item.load() for item in whole] == [noise] * 3
        assert loss.id == "x"
        assert code_of(loss) == "source_invalid"

    def test_image_cut_by_truncation_is_reported(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "x.tar", {"a.jpg": JPEG, "b.jpg": JPEG})
        path.write_bytes(path.read_bytes()[: 512 + -(-len(JPEG) // 512) * 512 + 512 + 100])
        first, cut, loss = items(path)
        assert first.load() == JPEG
        assert (cut.id, code_of(cut), code_of(loss)) == ("x/b", "image_undecodable", "source_invalid")

    def test_damaged_header_is_reported(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "x.tar", {f"{i}.jpg": b"x" * 512 for i in range(3)})
        data = bytearray(path.read_bytes())
        data[1024 : 1024 + 100] = b"\x01" * 100
        path.write_bytes(data)
        assert [item.id for item in items(path)] == ["x/0", "x"]

    def test_invalid_tar_is_reported(self, tmp_path: Path) -> None:
        for name, data in (("empty.tar", b""), ("text.tar", b"no tar" * 1000), ("bad.tar.gz", b"\x1f\x8bno")):
            (tmp_path / name).write_bytes(data)
        assert [(item.id, code_of(item)) for item in items(tmp_path / "*.tar*")] == [
            ("bad", "source_invalid"),
            ("empty", "source_invalid"),
            ("text", "source_invalid"),
        ]

    def test_estimated_count_is_close(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "x.tar", {f"{i:04}.{e}": b"x" * 600 for i in range(500) for e in ("jpg", "txt")})
        expected = one(path).estimated_count()
        assert expected is not None
        assert abs(expected - 500) < 25

    def test_fingerprint_changes_with_the_tar(self, tmp_path: Path) -> None:
        path = write_tar(tmp_path / "x.tar", {"a.jpg": JPEG, "b.jpg": JPEG})
        before = [item.fingerprint for item in items(path)]
        assert len(set(before)) == 2
        assert [item.fingerprint for item in items(path)] == before
        os.utime(path, ns=(1, 1))
        assert not set(before) & {item.fingerprint for item in items(path)}


class TestParquet:
    def test_bytes_ids_captions_and_metadata(self, tmp_path: Path) -> None:
        table = {"key": ["a", "b"], "image": [JPEG, JPEG], "text": ["cat", None], "label": [1, 2], "height": [5, 6]}
        first, second = items(write_parquet(tmp_path / "x.parquet", table))
        assert (first.id, first.load()) == ("a", JPEG)
        assert first.columns == {"caption": "cat", "key": "a", "label": 1, "source_height": 5}
        assert second.columns == {"key": "b", "label": 2, "source_height": 6}
        assert first.fingerprint != second.fingerprint

    def test_named_columns_have_precedence(self, tmp_path: Path) -> None:
        table = {"id": [7], "sku": [123], "front": [JPEG], "back": [b"no"], "title": [["shoe", "a red shoe"]]}
        path = write_parquet(tmp_path / "x.parquet", table)
        (item,) = items(path, ColumnNames(id="sku", image="front", caption="title"))
        assert (item.id, item.load()) == ("123", JPEG)
        assert item.columns["captions"] == ["shoe", "a red shoe"]
        assert item.columns["source_id"] == 7
        assert items(path, ColumnNames(image="front"))[0].id == "7"

    def test_id_defaults_to_a_content_hash(self, tmp_path: Path) -> None:
        first, second = items(write_parquet(tmp_path / "x.parquet", {"image": [JPEG, JPEG + b"\0"]}))
        moved = items(write_parquet(tmp_path / "y.parquet", {"image": [JPEG + b"\0", JPEG]}))
        assert [second.id, first.id] == [item.id for item in moved]
        assert len(first.id) == 32

    def test_hugging_face_structs(self, tmp_path: Path) -> None:
        (tmp_path / "far.jpg").write_bytes(JPEG)
        both, path, neither = (JPEG, "a.jpg"), (None, "far.jpg"), (None, None)
        cells = [*({"bytes": data, "path": name} for data, name in (both, path, neither)), None]
        found = items(write_parquet(tmp_path / "x.parquet", {"id": list("abcd"), "image": cells}))
        assert [found[0].load(), found[1].load()] == [JPEG, JPEG]
        assert found[0].columns["path"] == "a.jpg"
        assert [code_of(item) for item in found[2:]] == ["image_undecodable", "image_undecodable"]

    def test_a_path_column_is_relative_to_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "images").mkdir()
        (tmp_path / "images/a.jpg").write_bytes(JPEG)
        paths = ["images/a.jpg", "images/none.jpg", "images", "a\0b"]
        found = items(write_parquet(tmp_path / "x.parquet", {"image_path": paths, "n": [1, 2, 3, 4]}))
        assert (found[0].id, found[0].load()) == ("images/a.jpg", JPEG)
        assert found[0].columns["path"] == "images/a.jpg"
        assert [code_of(item) for item in found[1:]] == ["source_not_found", "source_invalid", "source_invalid"]

    def test_path_column_finds_decomposed_names(self, tmp_path: Path) -> None:
        (tmp_path / "Ete\u0301").mkdir()
        (tmp_path / "Ete\u0301" / "Café.jpg").write_bytes(JPEG)
        path = write_parquet(
            tmp_path / "x.parquet", {"path": ["Été/Cafe\u0301.jpg", "Et\u00e9/Café.jpg", "Nö.jpg", "é" * 300]}
        )
        first, second, missing, too_long = items(path)
        assert second.load() == JPEG
        assert code_of(first) == code_of(missing) == "source_not_found"
        assert code_of(too_long) == "source_invalid"

    def test_ids_of_a_column_are_composed(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "x.parquet", {"id": ["Cafe\u0301"], "image": [JPEG]})
        assert items(path)[0].id == "Café"

    def test_a_long_text_for_a_path_is_shortened_in_the_error(self, tmp_path: Path) -> None:
        (item,) = items(write_parquet(tmp_path / "x.parquet", {"id": ["a"], "path": ["a long caption " * 500]}))
        with pytest.raises(SourceError, match="too long") as caught:
            item.load()
        assert len(str(caught.value)) < 260

    def test_a_row_without_an_id_is_reported(self, tmp_path: Path) -> None:
        found = items(write_parquet(tmp_path / "x.parquet", {"id": ["a", None], "image": [JPEG, JPEG]}))
        assert code_of(found[1]) == "source_invalid"
        with pytest.raises(SourceError, match=r"row 1 of x\.parquet has no id in column 'id'$"):
            found[1].load()

    def test_a_row_without_id_column_and_image_is_reported(self, tmp_path: Path) -> None:
        found = items(write_parquet(tmp_path / "x.parquet", {"image": [JPEG, None]}))
        with pytest.raises(SourceError, match=r"row 1 of x\.parquet has no image$"):
            found[1].load()

    def test_missing_image_column_is_named(self, tmp_path: Path) -> None:
        path = write_parquet(tmp_path / "x.parquet", {"URL": ["http://127.0.0.1/a.jpg"], "TEXT": ["cat"]})
        with pytest.raises(SourceError, match=r"column 'URL' holds URLs: download .* with --image-column$"):
            open_sources([str(path)])
        with pytest.raises(SourceError, match="no column 'nothing'"):
            open_sources([str(path)], ColumnNames(id="nothing"))

    def test_a_damaged_file_is_reported(self, tmp_path: Path) -> None:
        (tmp_path / "x.parquet").write_bytes(b"PAR1 and then nothing")
        (item,) = items(tmp_path / "x.parquet")
        assert (item.id, code_of(item)) == ("x", "source_invalid")

    def test_estimated_count_is_exact(self, tmp_path: Path) -> None:
        assert one(write_parquet(tmp_path / "x.parquet", {"image": [JPEG] * 3})).estimated_count() == 3


class TestArguments:
    def test_several_sources_keep_their_order(self, folder: Path, tmp_path: Path) -> None:
        for name in ("b", "a"):
            write_tar(tmp_path / f"{name}.tar", {"x.jpg": JPEG})
        found = [item.id for source in open_sources([str(tmp_path / "?.tar"), str(folder)]) for item in source]
        assert found[:3] == ["a/x", "b/x", "top.webp"]

    def test_name_prefixes_ids_and_sets_the_label(self, folder: Path) -> None:
        item = items(f"holiday={folder}")[0]
        assert (item.id, item.source, item.columns["path"]) == ("holiday/top.webp", "holiday", "top.webp")

    def test_an_existing_path_may_hold_an_equals_sign(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "a=b").mkdir()
        (tmp_path / "a=b" / "x.jpg").write_bytes(JPEG)
        monkeypatch.chdir(tmp_path)
        assert ids("a=b") == ["x.jpg"]

    @pytest.mark.parametrize("argument", ["nowhere", "nowhere-*.tar", "name=nowhere"])
    def test_missing_path_is_named(self, tmp_path: Path, argument: str) -> None:
        with pytest.raises(SourceNotFound, match="nowhere"):
            open_sources([f"{tmp_path}/{argument}"])

    def test_home_of_unknown_user_is_an_error(self) -> None:
        with pytest.raises(SourceNotFound, match="~no-such-user/x"):
            open_sources(["~no-such-user/x"])

    def test_unknown_kind_of_file_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "x.zip").write_bytes(b"PK")
        with pytest.raises(SourceError, match=r"\.parquet"):
            open_sources([str(tmp_path / "x.zip")])


def test_real_webdatasets(shared_data: Path) -> None:
    found = items(shared_data / "webdataset-tars" / "*.tar")
    assert len({item.id for item in found}) == len(found) == 11
    source = one(shared_data / "flickr8k" / "val.tar")
    flickr = list(source)
    assert len(flickr) == 974
    assert all(len(item.columns["captions"]) == 5 for item in flickr)
    assert abs((source.estimated_count() or 0) - 974) < 50


def test_invalid_utf8_in_tables_is_replaced(tmp_path: Path) -> None:
    texts = pa.array([b"x\xff", b"fine", None], pa.binary()).view(pa.string())
    images = pa.array([encoded(make_image(), "PNG")] * 3, pa.binary())
    pq.write_table(pa.table({"id": ["a", "b", "c"], "image": images, "note": texts}), tmp_path / "t.parquet")
    (source,) = open_sources([str(tmp_path / "t.parquet")])
    assert [item.columns.get("note") for item in source] == ["x\ufffd", "fine", None]
