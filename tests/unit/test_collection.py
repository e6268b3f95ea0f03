"""The versioned folder: published whole or not at all, verified before it is read, never served by another encoder."""

from __future__ import annotations

import builtins
import errno
import io
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from lookalike.collection import (
    CURRENT,
    VECTORS,
    VERSIONS,
    current_version,
    new_version_name,
    open_collection,
    publish,
    replace_text,
    staging_folder,
)
from lookalike.encoders.fake import FakeEncoder
from lookalike.errors import (
    ChecksumMismatch,
    CollectionError,
    CollectionNotFound,
    EncoderMismatch,
    FormatTooNew,
    LookalikeError,
    ManifestInvalid,
)
from lookalike.manifest import FORMAT_VERSION, Counts, EncoderEntry, Manifest, StoreEntry, read_manifest
from lookalike.metadata import METADATA_FILES, write_metadata
from lookalike.thumbnails import THUMBNAILS_FILE, write_thumbnails

SPEC = FakeEncoder.spec
ROWS = 3


def build(root: Path, version: str | None = None, rows: int = ROWS) -> Path:
    """Publishes a small version, as the indexing job does."""
    version = version or new_version_name()
    folder = staging_folder(root, version)
    np.save(folder / VECTORS, np.eye(rows, SPEC.dim, dtype=np.float16))
    table = pa.table({"id": [f"item {i}" for i in range(rows)]})
    write_metadata(folder, table.schema, [table])
    write_thumbnails(folder, [pa.array([b"x"] * rows)])
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=root.name,
        version=version,
        created="2026-01-01T00:00:00Z",
        lookalike="0.1.0",
        encoder=EncoderEntry.of(SPEC),
        store=StoreEntry(kind="exact"),
        counts=Counts(seen=rows, indexed=rows, rejected=0),
    )
    return publish(root, folder, manifest)


def edit_manifest(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


class TestPublishing:
    def test_published_version_opens(self, tmp_path: Path) -> None:
        folder = build(tmp_path)
        collection = open_collection(tmp_path)
        assert collection.folder == folder
        assert len(collection) == ROWS
        assert collection.metadata.row_of("item 1") == 1
        assert collection.thumbnails.get(2) == b"x"
        np.testing.assert_array_equal(collection.vectors, np.eye(ROWS, SPEC.dim))
        assert set(collection.manifest.files) == {p.name for p in folder.iterdir()} - {"manifest.json"}

    def test_the_last_two_versions_are_kept(self, tmp_path: Path) -> None:
        for version in ("1", "2", "3", "4"):
            build(tmp_path, version)
        assert sorted(p.name for p in (tmp_path / VERSIONS).iterdir()) == ["3", "4"]
        assert current_version(tmp_path) == "4"

    def test_unfinished_version_is_invisible_and_removed(self, tmp_path: Path) -> None:
        build(tmp_path, "1")
        leftover = staging_folder(tmp_path, "2")
        (leftover / "half").write_bytes(b"x")
        assert open_collection(tmp_path).manifest.version == "1"
        build(tmp_path, "3")
        assert not leftover.exists()

    def test_reader_keeps_its_version(self, tmp_path: Path) -> None:
        build(tmp_path, "1")
        reader = open_collection(tmp_path)
        for version in ("2", "3", "4"):
            build(tmp_path, version)
        assert not reader.folder.exists()
        assert float(reader.vectors[1, 1]) == 1.0
        assert reader.metadata.records([0]) == [{"id": "item 0"}]

    def test_versions_sort_by_time_and_are_unique(self) -> None:
        names = [new_version_name() for _ in range(50)]
        assert len(set(names)) == 50
        assert [name[:16] for name in names] == sorted(name[:16] for name in names)

    def test_replace_text_replaces_the_file(self, tmp_path: Path) -> None:
        replace_text(tmp_path / "x", "one")
        replace_text(tmp_path / "x", "two")
        assert [p.name for p in tmp_path.iterdir()] == ["x"]
        assert (tmp_path / "x").read_text() == "two"

    def test_replace_text_leaves_nothing_on_a_full_disk(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            replace_text(tmp_path / "x", "one")
        assert not list(tmp_path.iterdir())


class TestOpening:
    def test_missing_collection_says_how_to_make_one(self, tmp_path: Path) -> None:
        with pytest.raises(CollectionNotFound, match="lookalike index"):
            open_collection(tmp_path)

    def test_file_descriptor_limit_names_ulimit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def none_left(*_: object, **__: object) -> str:
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(Path, "read_text", none_left)
        with pytest.raises(CollectionNotFound, match=r"Too many open files.*ulimit"):
            open_collection(tmp_path)

    @pytest.mark.parametrize("content", ["", "../../etc", "a/b", "a\0b", "\0" * 30])
    def test_current_may_only_name_a_version(self, tmp_path: Path, content: str) -> None:
        build(tmp_path)
        (tmp_path / CURRENT).write_text(content)
        with pytest.raises(ManifestInvalid, match="does not name a version"):
            open_collection(tmp_path)

    @pytest.mark.parametrize("name", [VECTORS, *METADATA_FILES, THUMBNAILS_FILE])
    def test_flipped_bit_is_detected_in_every_file(self, tmp_path: Path, name: str) -> None:
        folder = build(tmp_path)
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
        with pytest.raises(ChecksumMismatch, match=name):
            open_collection(tmp_path)

    def test_missing_or_longer_file_is_detected(self, tmp_path: Path) -> None:
        folder = build(tmp_path)
        with (folder / VECTORS).open("ab") as stream:
            stream.write(b"x")
        with pytest.raises(ChecksumMismatch, match="bytes"):
            open_collection(tmp_path)
        (folder / VECTORS).unlink()
        with pytest.raises(ChecksumMismatch, match="missing"):
            open_collection(tmp_path)

    def test_unverified_damage_raises_own_errors(self, tmp_path: Path) -> None:
        folder = build(tmp_path)
        for name in ("vectors.npy", "metadata.arrow", "ids.npy", "thumbnails.arrow", "manifest.json"):
            content = (folder / name).read_bytes()
            (folder / name).write_bytes(content[: len(content) // 3])
            with pytest.raises(LookalikeError):
                open_collection(tmp_path, verify=False)
            (folder / name).write_bytes(content)
        open_collection(tmp_path, verify=False)

    def test_version_must_match_its_folder(self, tmp_path: Path) -> None:
        folder = build(tmp_path)
        folder.rename(folder.with_name("restored"))
        (tmp_path / CURRENT).write_text("restored")
        with pytest.raises(ManifestInvalid, match=f"holds version '{folder.name}'; rename the folder to that name"):
            open_collection(tmp_path)

    @pytest.mark.parametrize("verify", [True, False])
    @pytest.mark.parametrize("name", [CURRENT, VECTORS])
    def test_unreadable_files_are_named(
        self, tmp_path: Path, name: str, verify: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        build(tmp_path)
        real = builtins.open

        def refused(path: Any, *args: Any, **options: Any) -> Any:
            if Path(path).name == name:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path, *args, **options)

        monkeypatch.setattr(io, "open", refused)
        monkeypatch.setattr(builtins, "open", refused)
        with pytest.raises(CollectionError, match=rf"{name} can't be read: .*Permission denied"):
            open_collection(tmp_path, verify=verify)

    def test_counts_must_agree(self, tmp_path: Path) -> None:
        folder = build(tmp_path)
        edit_manifest(folder, counts={"seen": 9, "indexed": 9, "rejected": 0})
        with pytest.raises(ManifestInvalid, match="don't agree"):
            open_collection(tmp_path)

    def test_vectors_must_be_float16(self, tmp_path: Path) -> None:
        folder = build(tmp_path)
        np.save(folder / VECTORS, np.eye(ROWS, SPEC.dim, dtype=np.float32))
        with pytest.raises(ManifestInvalid, match="float32"):
            open_collection(tmp_path, verify=False)


class TestManifest:
    def test_later_format_is_rejected(self, tmp_path: Path) -> None:
        folder = build(tmp_path)
        edit_manifest(folder, format_version=FORMAT_VERSION + 1, something_new=True)
        with pytest.raises(FormatTooNew, match="upgrade"):
            read_manifest(folder)

    @pytest.mark.parametrize(
        "content", ["", "{", "[]", "{}", '{"format_version": "one"}', '{"format_version": 1}', "\xff"]
    )
    def test_invalid_manifest_is_rejected(self, tmp_path: Path, content: str) -> None:
        (tmp_path / "manifest.json").write_bytes(content.encode("latin-1"))
        with pytest.raises(ManifestInvalid):
            read_manifest(tmp_path)

    def test_missing_manifest_is_rejected(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestInvalid, match="can't be read"):
            read_manifest(tmp_path)

    def test_manifest_round_trips(self, tmp_path: Path) -> None:
        folder = build(tmp_path)
        manifest = read_manifest(folder)
        assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
        assert manifest.encoder.identity == SPEC.identity


class TestEncoders:
    def test_same_encoder_on_another_engine_is_accepted(self, tmp_path: Path) -> None:
        build(tmp_path)
        open_collection(tmp_path).require_encoder(replace(SPEC, engine="openvino", precision="bf16", device="cuda"))

    def test_languages_and_limits_are_no_part_of_the_identity(self, tmp_path: Path) -> None:
        folder = build(tmp_path)
        open_collection(tmp_path).require_encoder(replace(SPEC, languages=("en", "zh"), limits="Good for all."))
        assert not {"languages", "limits"} & json.loads((folder / "manifest.json").read_text())["encoder"].keys()

    @pytest.mark.parametrize("change", [{"weights": "1" * 64}, {"dim": 14}, {"image_size": 9}, {"preprocessing": "x"}])
    def test_other_encoder_is_rejected_naming_both(self, tmp_path: Path, change: dict[str, object]) -> None:
        build(tmp_path)
        other = replace(SPEC, name="other", **change)  # type: ignore[arg-type]
        with pytest.raises(EncoderMismatch, match=r"'fake'.*'other'"):
            open_collection(tmp_path).require_encoder(other)
