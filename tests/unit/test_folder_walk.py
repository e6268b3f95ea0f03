"""The walk through a folder: candidates, skipped files, ignore patterns, links, and folders that can't be listed."""

from __future__ import annotations

import doctest
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lookalike.errors import SourceError
from lookalike.sources import folder_walk, scan_report
from lookalike.sources.folder import FolderSource
from lookalike.sources.ignore_rules import DEFAULT_EXCLUDES, IGNORE_FILE, ignore_rules
from lookalike.sources.item import Item, Source
from lookalike.sources.registry import open_sources
from tests.bad_images import encoded, make_image
from tests.unit.test_sources import code_of, write_parquet, write_tar

JPEG = encoded(make_image(), "JPEG")
GUIDE = Path(__file__).resolve().parents[2] / "docs" / "guides" / "index-images.md"


def write(root: Path, *names: str, data: bytes = JPEG) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def scan(root: Path, *exclude: str) -> tuple[list[str], FolderSource]:
    source = open_sources([str(root)], exclude=exclude)[0]
    assert isinstance(source, FolderSource)
    return [item.id for item in source], source


@pytest.mark.parametrize("module", [folder_walk, scan_report])
def test_docstring_examples(module: object) -> None:
    assert doctest.testmod(module).failed == 0  # type: ignore[arg-type]  # a parametrized module


class TestCandidates:
    def test_first_bytes_decide_without_usual_extension(self, tmp_path: Path) -> None:
        write(tmp_path, "photo", "a.jpg_large", "a.jpg!d", "a.webp@120w", "2024.01.05", "b.PNG")
        write(tmp_path, "README", "notes.long_ending", data=b"plain text")
        found, source = scan(tmp_path)
        assert found == ["2024.01.05", "a.jpg!d", "a.jpg_large", "a.webp@120w", "b.PNG", "photo"]
        assert source.report.skipped == {"": 2}

    def test_other_extensions_are_counted(self, tmp_path: Path) -> None:
        write(tmp_path, "a.jpg", "b.MOV", "sub/c.mov", "sub/d.xmp", "x.torrent", ".DS_Store", "._a.jpg")
        (tmp_path / "x.torrent").write_bytes(b"d8:announce")
        found, source = scan(tmp_path)
        assert found == ["a.jpg"]
        assert source.report.skipped == {".mov": 2, ".xmp": 1, ".torrent": 1}
        assert list(source)
        assert source.report.skipped.total() == 4  # a second iteration counts anew

    def test_used_caption_is_not_skipped(self, tmp_path: Path) -> None:
        write(tmp_path, "a.jpg")
        write(tmp_path, "a.txt", "b.txt", data=b"a cat")
        assert scan(tmp_path)[1].report.skipped == {".txt": 1}

    def test_special_files_without_extension_do_not_block(self, tmp_path: Path) -> None:
        write(tmp_path, "a.jpg")
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "broken").symlink_to("nowhere")
        assert scan(tmp_path)[0] == ["a.jpg"]

    def test_single_file_without_extension_is_a_source(self, tmp_path: Path) -> None:
        write(tmp_path, "photo")
        assert [item.id for item in open_sources([str(tmp_path / "photo")])[0]] == ["photo"]

    def test_estimate_opens_no_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, "a.jpg", "photo", "b.mov")
        source = FolderSource(tmp_path, "x")
        monkeypatch.setattr(Path, "open", None)
        assert source.estimated_count() == 2


class TestExclude:
    @pytest.mark.parametrize("name", DEFAULT_EXCLUDES)
    def test_default_folders_are_left_out(self, tmp_path: Path, name: str) -> None:
        folder = name.replace("*", "My")
        write(tmp_path, "a.jpg", f"{folder}x.jpg", f"deep/{folder}x.jpg", f"upper/{folder.upper()}y.jpg")
        found, source = scan(tmp_path)
        assert found == ["a.jpg"]
        assert source.report.excluded == {name: 3}
        assert name in GUIDE.read_text(encoding="utf-8")

    def test_file_named_like_a_default_is_read(self, tmp_path: Path) -> None:
        write(tmp_path, "@eaDir")
        assert scan(tmp_path)[0] == ["@eaDir"]

    def test_no_media_file_excludes_its_folder(self, tmp_path: Path) -> None:
        write(tmp_path, "a.jpg", "app/b.jpg", "app/sub/c.jpg")
        write(tmp_path, "app/.nomedia", data=b"")
        assert scan(tmp_path)[0] == ["a.jpg"]
        assert scan(tmp_path)[1].report.excluded == {".nomedia": 1}
        assert scan(tmp_path, "!app/")[0] == ["a.jpg", "app/b.jpg", "app/sub/c.jpg"]
        assert scan(tmp_path / "app")[0] == ["b.jpg", "sub/c.jpg"]  # named by the user

    def test_patterns_follow_gitignore(self, tmp_path: Path) -> None:
        write(tmp_path, "a.png", "keep.png", "b.jpg", "drafts/c.jpg", "x/drafts/d.jpg", "x/e.jpg", "old/f.jpg")
        assert scan(tmp_path, "*.png", "!keep.png", "/drafts/", "old")[0] == [
            "b.jpg", "keep.png", "x/e.jpg", "x/drafts/d.jpg",
        ]  # fmt: skip

    def test_negated_pattern_includes_default_again(self, tmp_path: Path) -> None:
        write(tmp_path, "a.jpg", "@eaDir/b.jpg", "@eaDir/sub/c.jpg")
        assert scan(tmp_path, "!@eaDir/")[0] == ["a.jpg", "@eaDir/b.jpg", "@eaDir/sub/c.jpg"]

    def test_ignore_files_hold_below_their_folder(self, tmp_path: Path) -> None:
        write(tmp_path, "a.png", "a.jpg", "x/b.png", "x/c.jpg", "x/y/d.jpg", "z/c.jpg")
        (tmp_path / IGNORE_FILE).write_text("# comment\n\n*.png\r\n")
        (tmp_path / "x" / IGNORE_FILE).write_text("\ufeff!b.png\n/c.jpg\n/y/\n", encoding="utf-8")
        assert scan(tmp_path)[0] == ["a.jpg", "x/b.png", "z/c.jpg"]
        assert scan(tmp_path, "b.png")[0] == ["a.jpg", "z/c.jpg"]  # the option has precedence

    def test_decomposed_names_match_patterns(self, tmp_path: Path) -> None:
        write(tmp_path, "Cafe\u0301/a.jpg", "b.jpg")
        assert scan(tmp_path, "Caf\u00e9/")[0] == ["b.jpg"]

    @pytest.mark.parametrize("pattern", ["[z-a]", "!", "foo\\", "[", "", "#recycle"])
    def test_invalid_or_idle_pattern_is_one_line(self, pattern: str) -> None:
        with pytest.raises(SourceError, match="--exclude") as caught:
            ignore_rules([pattern])
        assert "\n" not in str(caught.value)

    def test_invalid_ignore_file_is_named(self, tmp_path: Path) -> None:
        write(tmp_path, "a.jpg")
        (tmp_path / IGNORE_FILE).write_text("[z-a]\n")
        with pytest.raises(SourceError, match=rf"{IGNORE_FILE}: .*z-a"):
            scan(tmp_path)

    def test_own_collections_are_left_out(self, tmp_path: Path) -> None:
        write(tmp_path, "a.jpg", "index/versions/1/x.parquet", "index/CURRENT")
        found, source = scan(tmp_path)
        assert (found, source.report.skipped) == (["a.jpg"], {})
        with pytest.raises(SourceError, match="index is a collection"):
            scan(tmp_path / "index")


class TestLinks:
    def test_link_to_ancestor_doubles_nothing(self, tmp_path: Path) -> None:
        root = tmp_path / "up" / "photos"
        write(root, "a.jpg", "sub/b.jpg")
        write(tmp_path, "up/other/c.jpg")
        (root / "all").symlink_to("..")
        (root / "sub" / "top").symlink_to(tmp_path)
        assert scan(root)[0] == ["a.jpg", "all/other/c.jpg", "sub/b.jpg"]

    def test_nested_targets_of_two_links_are_read_once(self, tmp_path: Path) -> None:
        write(tmp_path, "far/near/a.jpg", "far/b.jpg")
        for number, (first, second) in enumerate([("far", "far/near"), ("far/near", "far"), ("far", "far")]):
            root = tmp_path / f"root{number}"
            root.mkdir()
            (root / "1").symlink_to(tmp_path / first)
            (root / "2").symlink_to(tmp_path / second)
            found = scan(root)[0]
            assert sorted(Path(name).name for name in found) == ["a.jpg", "b.jpg"]
            assert found == scan(root)[0]

    def test_folder_of_the_tree_wins_over_links(self, tmp_path: Path) -> None:
        root = tmp_path / "root"
        write(root, "z/a.jpg")
        write(tmp_path, "far/b.jpg")
        (root / "a").symlink_to("z")
        (root / "link").symlink_to(tmp_path / "far")
        (tmp_path / "far" / "back").symlink_to(root / "z")
        (tmp_path / "far" / "loop").symlink_to(tmp_path / "far")
        assert scan(root)[0] == ["link/b.jpg", "z/a.jpg"]


class TestShardFolders:
    def test_folder_of_tars_is_read(self, tmp_path: Path) -> None:
        for name in ("0.tar", "sub/0.tar"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            write_tar(tmp_path / name, {"a.jpg": JPEG})
        write_parquet(tmp_path / "0.parquet", {"url": ["http://127.0.0.1/a.jpg"]})  # as img2dataset describes a tar
        write(tmp_path, "0_stats.json", data=b"{}")
        sources = open_sources([str(tmp_path)])
        assert [item.id for source in sources for item in source] == ["0/a", "sub/0/a"]
        assert sources[0].report.skipped == {".parquet": 1, ".json": 1}

    def test_folder_of_tables_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "data").mkdir()
        for name in ("b", "a"):
            write_parquet(tmp_path / "data" / f"{name}.parquet", {"id": [name], "image": [JPEG]})
        write(tmp_path, "README.md", data=b"# Data")
        assert [item.id for source in open_sources([f"x={tmp_path}"]) for item in source] == ["x/a", "x/b"]

    def test_tars_and_tables_together_are_refused(self, tmp_path: Path) -> None:
        write_tar(tmp_path / "a.tar", {"a.jpg": JPEG})
        write_parquet(tmp_path / "b.parquet", {"image": [JPEG]})
        with pytest.raises(SourceError, match=r"1 tar file and 1 Parquet file:.*/\*\*/\*\.tar"):
            open_sources([str(tmp_path)])

    def test_tar_beside_images_is_skipped(self, tmp_path: Path) -> None:
        write(tmp_path, "sub/a.jpg")
        write_tar(tmp_path / "a.tar", {"a.jpg": JPEG})
        found, source = scan(tmp_path)
        assert (found, source.report.skipped) == (["sub/a.jpg"], {".tar": 1})


@pytest.fixture
def unlistable(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """Names of folders that `os.scandir` refuses: root may list any."""
    names: set[str] = set()
    scandir = os.scandir

    def refuse(path: Path) -> object:
        if Path(path).name in names:
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(folder_walk.os, "scandir", refuse)
    return names


class TestUnlistedFolders:
    def test_folder_is_an_unavailable_item(self, tmp_path: Path, unlistable: set[str]) -> None:
        write(tmp_path, "a.jpg", "shut/b.jpg", "z/c.jpg")
        unlistable.add("shut")
        source: Source = FolderSource(tmp_path, "x", "p/")
        items: list[Item] = list(source)
        assert [(item.id, item.unavailable) for item in items] == [
            ("p/a.jpg", False), ("p/shut/", True), ("p/z/c.jpg", False),
        ]  # fmt: skip
        assert code_of(items[1]) == "source_invalid"
        assert source.report.unlisted == ["p/shut/"]

    def test_source_itself_is_an_error(self, tmp_path: Path, unlistable: set[str]) -> None:
        write(tmp_path, "shut/b.jpg")
        unlistable.add("shut")
        with pytest.raises(SourceError, match="shut can't be read: Permission denied"):
            list(open_sources([str(tmp_path / "shut")])[0])

    def test_file_in_closed_folder_is_unavailable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, "a.jpg")
        source = FolderSource(tmp_path, "x")

        def refuse(path: Path) -> None:
            raise PermissionError(13, "Permission denied", str(path))

        monkeypatch.setattr("lookalike.sources.folder.Path.stat", refuse)
        assert [item.unavailable for item in source] == [True]
