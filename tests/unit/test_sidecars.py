"""Files beside images: captions, JSON, Google Takeout, and ImageFolder's tables."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lookalike.sources.folder import FolderSource
from lookalike.sources.item import composed
from lookalike.sources.sidecars import MAX_JSON_BYTES, Sidecars
from tests.bad_images import encoded, make_image

JPEG = encoded(make_image(), "JPEG")


def write(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def columns(folder: Path, caption: str | None = None) -> dict[str, dict[str, Any]]:
    """Return path -> the other columns."""
    found = {item.id: dict(item.columns) for item in FolderSource(folder, "images", caption=caption)}
    return {name: {key: value for key, value in row.items() if key != "path"} for name, row in found.items()}


class TestCaptions:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252"])
    def test_caption_file_of_any_usual_encoding(self, tmp_path: Path, encoding: str) -> None:
        write(tmp_path, {"a.jpg": JPEG, "a.txt": "Ein Falke über Müden\nzwei".encode(encoding)})
        assert columns(tmp_path)["a.jpg"]["captions"] == ["Ein Falke über Müden", "zwei"]

    def test_long_caption_file_is_cut_between_characters(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.jpg": JPEG, "a.txt": "x" + "é" * 40_000})
        assert columns(tmp_path)["a.jpg"]["caption"] == "x" + "é" * 32_767

    @pytest.mark.parametrize("name", ["a.txt", "a.TXT", "a.jpg.txt"])
    def test_caption_file_is_named_like_the_image(self, tmp_path: Path, name: str) -> None:
        write(tmp_path, {"a.jpg": JPEG, name: "a cat"})
        assert columns(tmp_path) == {"a.jpg": {"caption": "a cat"}}

    def test_decomposed_sidecar_belongs_to_composed_image(self, tmp_path: Path) -> None:
        write(tmp_path, {"Café.jpg": JPEG, "Cafe\u0301.txt": "a cup", "Cafe\u0301.json": '{"n": 1}'})
        assert columns(tmp_path) == {"Café.jpg": {"caption": "a cup", "n": 1}}


class TestJson:
    @pytest.mark.parametrize("name", ["a.json", "a.jpg.json", "a.JSON"])
    def test_keys_become_columns(self, tmp_path: Path, name: str) -> None:
        content = {"caption": "a cat", "price": 1.5, "tags": ["x"], "width": 9, "id": 7, "place": {"x": 1}}
        write(tmp_path, {"a.jpg": JPEG, "b.jpg": JPEG, name: json.dumps(content)})
        assert columns(tmp_path) == {
            "a.jpg": {
                "caption": "a cat",
                "price": 1.5,
                "tags": ["x"],
                "source_width": 9,
                "source_id": 7,
                "place": {"x": 1},
            },
            "b.jpg": {},
        }

    def test_text_file_has_precedence_over_json(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.jpg": JPEG, "a.txt": "text", "a.json": '{"caption": "json", "key": "a"}'})
        assert columns(tmp_path) == {"a.jpg": {"caption": "text", "source_caption": "json", "key": "a"}}

    def test_caption_key_can_be_named(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.jpg": JPEG, "a.json": '{"caption": "json", "title": "Rex"}'})
        assert columns(tmp_path, "title") == {"a.jpg": {"caption": "Rex", "source_caption": "json"}}

    def test_byte_order_marks_are_accepted(self, tmp_path: Path) -> None:
        for name, encoding in {"a": "utf-8-sig", "b": "utf-16"}.items():
            write(tmp_path, {f"{name}.jpg": JPEG, f"{name}.json": '{"x": "ü"}'.encode(encoding)})
        assert columns(tmp_path) == {"a.jpg": {"x": "ü"}, "b.jpg": {"x": "ü"}}

    @pytest.mark.parametrize("content", [b"{", b"[" * 100_000, b"", b"\xff\xfe", b"{" + b" " * MAX_JSON_BYTES + b"}"])
    def test_invalid_json_keeps_image(self, tmp_path: Path, content: bytes) -> None:
        write(tmp_path, {"a.jpg": JPEG, "a.json": content, "a.txt": "a cat"})
        assert columns(tmp_path) == {"a.jpg": {"caption": "a cat"}}

    def test_unreadable_sidecars_keep_image(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.jpg": JPEG})
        os.mkfifo(tmp_path / "a.txt")
        (tmp_path / "a.json").mkdir()
        (tmp_path / "a.jpg.json").symlink_to("nowhere")
        assert columns(tmp_path) == {"a.jpg": {}}

    def test_only_the_first_invalid_file_is_a_warning(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        for name in "abc":
            write(tmp_path, {f"{name}.jpg": JPEG, f"{name}.json": "{"})
        with caplog.at_level(logging.INFO):
            columns(tmp_path)
        levels = [record.levelname for record in caplog.records]
        assert levels == ["WARNING", "INFO", "INFO"]
        assert "a.json is not JSON" in caplog.records[0].message


class TestTakeout:
    content = json.dumps(
        {
            "title": "IMG_1.jpg",
            "description": "a falcon",
            "photoTakenTime": {"timestamp": "1684059300"},
            "geoData": {"latitude": 38.5, "longitude": -78.4},
        }
    )

    def test_description_time_and_place_become_columns(self, tmp_path: Path) -> None:
        write(tmp_path, {"IMG_1.jpg": JPEG, "IMG_1.jpg.supplemental-metadata.json": self.content})
        found = columns(tmp_path)["IMG_1.jpg"]
        assert found["caption"] == "a falcon"
        assert found["taken"] == datetime(2023, 5, 14, 10, 15, tzinfo=UTC)
        assert (found["latitude"], found["longitude"]) == (38.5, -78.4)
        assert found["geoData"] == {"latitude": 38.5, "longitude": -78.4}

    @pytest.mark.parametrize(
        ("image", "sidecar"),
        [
            ("IMG_1.jpg", "IMG_1.jpg.json"),
            ("IMG_1.jpg", "IMG_1.jpg.supplemental-meta.json"),
            ("IMG_1.jpg", "IMG_1.jpg.suppl.json"),
            ("IMG_1.jpg", "IMG_1.jpg.s.json"),
            ("IMG_1(1).jpg", "IMG_1.jpg.supplemental-metadata(1).json"),
            ("IMG_1(1).jpg", "IMG_1.jpg(1).json"),
            ("IMG_1(1).jpg", "IMG_1(1).jpg.supplemental-metadata.json"),
            ("IMG_1-edited.jpg", "IMG_1.jpg.supplemental-metadata.json"),
            ("IMG_1-edited(2).jpg", "IMG_1.jpg.supplemental-metadata(2).json"),
            ("IMG_1-modifie\u0301.jpg", "IMG_1.jpg.supplemental-metadata.json"),
            ("IMG_1-edited(2).jpg", "IMG_1-edited.jpg.suppl(2).json"),
            (f"{'x' * 41}.jpg", f"{'x' * 41}.jpg..json"),
            (f"{'x' * 47}.jpg", f"{'x' * 46}.json"),
            (f"{'x' * 44}.jpg", f"{'x' * 44}.j.json"),
            (f"{'x' * 44}(3).jpg", f"{'x' * 44}.j(3).json"),
        ],
    )
    def test_every_form_of_the_name(self, tmp_path: Path, image: str, sidecar: str) -> None:
        write(tmp_path, {image: JPEG, "other.jpg": JPEG, sidecar: self.content})
        assert columns(tmp_path)[composed(image)]["caption"] == "a falcon"
        assert columns(tmp_path)["other.jpg"] == {}

    def test_copies_do_not_share_a_file(self, tmp_path: Path) -> None:
        for number in ("", "(1)"):
            content = json.dumps({"description": f"photo{number}", "photoTakenTime": {"timestamp": "x"}})
            write(tmp_path, {f"a{number}.jpg": JPEG, f"a.jpg.supplemental-metadata{number}.json": content})
        found = {name: row["caption"] for name, row in columns(tmp_path).items()}
        assert found == {"a.jpg": "photo", "a(1).jpg": "photo(1)"}

    @pytest.mark.parametrize("time", [None, {}, {"timestamp": "x"}, {"timestamp": "9" * 30}, {"timestamp": []}])
    def test_unknown_time_and_place_are_left_out(self, tmp_path: Path, time: object) -> None:
        content = {"photoTakenTime": time, "geoData": {"latitude": 0.0, "longitude": 0.0}, "description": ""}
        write(tmp_path, {"a.jpg": JPEG, "a.jpg.json": json.dumps(content)})
        assert not {"taken", "latitude", "longitude", "caption"} & columns(tmp_path)["a.jpg"].keys()


class TestMetadataFile:
    rows = ({"file_name": "a.jpg", "caption": "a falcon", "price": 3}, {"file_name": "sub/b.jpg", "price": 4})

    def write_table(self, folder: Path, name: str) -> None:
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(list(self.rows)), folder / name)
        elif name.endswith(".jsonl"):
            write(folder, {name: "\n".join(json.dumps(row) for row in self.rows)})
        else:
            write(folder, {name: "\ufefffile_name,caption,price\r\na.jpg,a falcon,3\r\n./sub\\b.jpg,,4\r\n"})

    @pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
    def test_rows_are_found_by_relative_path(self, tmp_path: Path, name: str) -> None:
        write(tmp_path, {"a.jpg": JPEG, "sub/b.jpg": JPEG, "sub/deeper/b.jpg": JPEG})
        self.write_table(tmp_path, name)
        assert columns(tmp_path) == {
            "a.jpg": {"caption": "a falcon", "price": 3},
            "sub/b.jpg": {"price": 4},
            "sub/deeper/b.jpg": {},
        }

    def test_nearest_table_has_precedence(self, tmp_path: Path) -> None:
        write(tmp_path, {"sub/b.jpg": JPEG, "z/b.jpg": JPEG})
        self.write_table(tmp_path, "metadata.csv")
        write(tmp_path, {"sub/metadata.csv": "file_name;price;color\nb.jpg;5,0;red\n"})
        assert columns(tmp_path) == {"sub/b.jpg": {"price": "5,0", "color": "red"}, "z/b.jpg": {}}

    def test_caption_precedence(self, tmp_path: Path) -> None:
        names = ["text.jpg", "json.jpg", "table.jpg", "takeout.jpg"]
        takeout = json.dumps({"description": "takeout", "photoTakenTime": {}})
        for name in names:
            write(tmp_path, {name: JPEG, f"{name}.supplemental-metadata.json": takeout})
        write(tmp_path, {"metadata.csv": "file_name,text\n" + "".join(f"{name},table\n" for name in names[:3])})
        write(tmp_path, {"text.json": '{"caption": "json"}', "json.json": '{"caption": "json"}', "text.txt": "text"})
        found = {name: row["caption"] for name, row in columns(tmp_path).items()}
        assert found == {name: name.removesuffix(".jpg") for name in names}

    def test_types_are_those_of_the_whole_csv(self, tmp_path: Path) -> None:
        lines = [f"{i}.jpg,{i},2024-01-0{1 + i % 9},yes{'x' * 90}" for i in range(30_000)]
        lines[-1] = "29999.jpg,0.5,2024-01-01,"
        write(tmp_path, {"1.jpg": JPEG, "29999.jpg": JPEG})
        write(tmp_path, {"metadata.csv": "file_name,x,day,note\n" + "\n".join(lines)})
        found = columns(tmp_path)
        assert found["1.jpg"]["x"] == 1.0
        assert found["29999.jpg"]["x"] == 0.5
        assert str(found["1.jpg"]["day"]) == "2024-01-02"
        assert "note" not in found["29999.jpg"]

    def test_repeated_column_names_are_numbered(self, tmp_path: Path) -> None:
        write(tmp_path, {"a.jpg": JPEG, "metadata.csv": "file_name,x,x\na.jpg,1,2\n"})
        assert columns(tmp_path) == {"a.jpg": {"x": 1, "x_2": 2}}

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("metadata.csv", "name,x\na.jpg,1\n"),
            ("metadata.csv", "file_name,x\na.jpg\n"),
            ("metadata.csv", ""),
            ("metadata.jsonl", "{"),
            ("metadata.jsonl", '"file_name"\n'),
            ("metadata.parquet", "no Parquet"),
        ],
    )
    def test_invalid_table_keeps_images(
        self, tmp_path: Path, name: str, content: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        write(tmp_path, {"a.jpg": JPEG, name: content})
        assert columns(tmp_path) == {"a.jpg": {}}
        assert name in caplog.records[0].message

    def test_decomposed_file_name_is_found(self, tmp_path: Path) -> None:
        write(tmp_path, {"Cafe\u0301.jpg": JPEG, "metadata.csv": "file_name,x\nCafé.jpg,1\n"})
        assert columns(tmp_path) == {"Café.jpg": {"x": 1}}


def test_used_files_are_known(tmp_path: Path) -> None:
    files = ("a.jpg", "a.txt", "a.json", "b.jpg", "b.json", "c.json", "metadata.csv", "metadata.jsonl", "notes.txt")
    for name in files:
        write(tmp_path, {name: {"b.json": "{", "metadata.csv": "file_name,x\na.jpg,1\n"}.get(name, '{"x": 1}')})
    beside = Sidecars().enter(tmp_path, set(files))
    for name in ("a.jpg", "b.jpg"):
        beside.columns(name)
    assert beside.used == {"a.txt", "a.json", "metadata.csv"}
